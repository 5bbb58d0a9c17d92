import warnings

import pytest
import torch
from torchvision import tv_tensors

from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import create_loader
from sightline.datasets.derived.relabeled import match_classes
from sightline.errors import SightlineError


def sample(index: int, label: int | torch.Tensor, mask: torch.Tensor | None = None) -> Sample:
    image = tv_tensors.Image(torch.full((3, 8, 8), index, dtype=torch.uint8))
    return Sample(image, label, None if mask is None else tv_tensors.Mask(mask), index, None, str(index))


def test_classes_are_matched_by_name_with_a_warning() -> None:
    data = InMemory([sample(0, 0), sample(1, 1), sample(2, 0)], ["dog", "cat"], "few")
    with pytest.warns(UserWarning, match="the data has 2 classes and the model has 3"):
        matched = match_classes(data, ["bird", "cat", "dog"], "the model")
    assert matched.classes == ["bird", "cat", "dog"]
    assert matched.labels.tolist() == [2, 1, 2]
    assert [matched[i].label for i in range(3)] == [2, 1, 2]
    assert next(iter(create_loader(matched, size=8, batch_size=3, train=False))).labels.tolist() == [2, 1, 2]
    assert matched.fingerprint != data.fingerprint


def test_the_same_classes_change_nothing_and_unknown_ones_are_named() -> None:
    data = InMemory([sample(0, 0), sample(1, 1)], ["dog", "cat"], "few")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_classes(data, ["dog", "cat"], "the model") is data
    with pytest.raises(
        SightlineError, match=r"1 of the 2 classes of the data are unknown to the run r: 'cat'.*2 classes: 'd"
    ):
        match_classes(data, ["dog", "Cat"], "the run r")


def test_masks_of_classes_go_where_their_classes_are() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[0, 0], masks[1, 7] = 1, 255
    data = InMemory([sample(0, torch.tensor([1, 0]), masks), sample(1, torch.tensor([1, 1]), masks)], ["b", "a"], "two")
    with pytest.warns(UserWarning, match="matched by name"):
        matched = match_classes(data, ["a", "b", "c"], "the model")
    assert matched.labels.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert matched[0].label.tolist() == [0, 1, 0]
    mask = matched[0].mask
    assert mask.shape == (3, 8, 8)
    assert (mask[1] == masks[0]).all()
    assert (mask[0] == masks[1]).all()
    assert not mask[2].any()
