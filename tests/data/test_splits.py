import pytest
import torch
from torchvision import tv_tensors

from sightline import SightlineError
from sightline.data.dataset import InMemory, Sample
from sightline.data.splits import Splits


def one(name: str) -> InMemory:
    image = tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8))
    return InMemory([Sample(image, 0, None, 0, None, name)], ["cat", "dog"], identity=name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["train", "test", "hard"], "test"), (["train", "test_iid", "test_shifted"], "test_shifted")],
)
def test_main_test_is_the_ordinary_or_the_shifted_one(names: list[str], expected: str) -> None:
    splits = Splits({name: one(name) for name in names})
    assert splits.main_test == expected
    assert splits.select(None) is splits[expected]
    assert splits.select("train") is splits["train"]


def test_main_test_without_a_test_split_lists_the_splits() -> None:
    with pytest.raises(
        SightlineError, match="the splits are train, val; expected one of test, test_shifted, test_swapped"
    ):
        _ = Splits({name: one(name) for name in ("train", "val")}).main_test
