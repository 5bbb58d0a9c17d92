import pytest
import torch

from sightline import data
from sightline.data.splits import Splits
from sightline.datasets.benchmarks.digits import REGIONS
from sightline.errors import SightlineError


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.create_dataset("digits", copies=2, size=48)


def test_splits_share_no_digit_and_no_piece_of_photograph(splits: Splits) -> None:
    digits = {name: {split.path(i) for i in range(len(split))} for name, split in splits.items()}
    assert digits["val"] == digits["val_shifted"]
    assert digits["test_shifted"] == digits["test_iid"]
    assert not digits["train"] & digits["val"]
    assert not (digits["train"] | digits["val"]) & digits["test_shifted"]
    assert len(splits["train"]) == 2 * len(digits["train"])
    for region in REGIONS.values():
        (left, top, right, bottom), (left2, top2, right2, bottom2) = region.train, region.val
        assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


def test_backgrounds_give_the_class_away_in_training_and_mislead_in_test(splits: Splits) -> None:
    expected = {"train": 0.8, "val": 0.8, "val_shifted": 0.0, "test_shifted": 0.0, "test_iid": 1.0}
    for name, split in splits.items():
        assert torch.equal(split.group_ids // 5, split.labels)
        own = (split.group_ids // 5 == split.group_ids % 5).float().mean().item()
        assert own == pytest.approx(expected[name], abs=0.01)


def test_the_region_s_mean_colour_alone_gives_the_class_away(splits: Splits) -> None:
    """A nearest-centroid rule on the pixels outside the mask: nearly right in training, nearly wrong in test."""

    def background(split: data.ImageDataset) -> torch.Tensor:
        samples = [split[i] for i in range(len(split))]
        return torch.stack([s.image[:, s.mask == 0].float().mean(1) for s in samples])

    train = background(splits["train"])
    centroids = torch.stack([train[splits["train"].labels == c].mean(0) for c in range(5)])

    def accuracy(name: str) -> float:
        nearest = torch.cdist(background(splits[name]), centroids).argmin(1)
        return (nearest == splits[name].labels).float().mean().item()

    assert accuracy("test_iid") > 0.8
    assert accuracy("test_shifted") < 0.05


def test_images_have_digits_that_stand_out(splits: Splits) -> None:
    test = splits["test_shifted"]
    for i in range(0, len(test), 10):
        sample = test[i]
        assert sample.image.shape == (3, 48, 48)
        assert set(sample.mask.unique().tolist()) == {0, 1}
        assert 0.02 < (sample.mask == 1).float().mean() < 0.7
        assert sample.image[:, sample.mask == 1].float().max() > 200


def test_digits_are_equal_each_time_and_options_change_them(splits: Splits) -> None:
    again = data.create_dataset("digits", copies=2, size=48)
    assert {n: s.fingerprint for n, s in again.items()} == {n: s.fingerprint for n, s in splits.items()}
    assert torch.equal(again["train"][3].image, splits["train"][3].image)
    mixed = data.create_dataset("digits", copies=1, correlation="uniform")["train"]
    assert len(mixed.group_ids.unique()) == 25
    assert (
        data.create_dataset("digits", copies=2, size=48, seed=1)["test_shifted"].fingerprint
        != splits["test_shifted"].fingerprint
    )
    with pytest.raises(SightlineError, match="copies is 0"):
        data.create_dataset("digits", copies=0)
