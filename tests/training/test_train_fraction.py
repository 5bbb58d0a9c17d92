"""The recipe's key `train_fraction`."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sightline.errors import SightlineError
from sightline.training import train
from sightline.training.build import build
from tiny import recipe


def chosen(**keys: object) -> set[str]:
    images = build(recipe(**keys)).splits["train"]
    return {images.path(index) for index in range(len(images))}


def test_a_larger_share_contains_a_smaller_one_and_classes_keep_theirs() -> None:
    shares = [chosen(train_fraction=share) for share in (0.2, 0.5, 0.7, 1.0)]
    assert [len(share) for share in shares] == [4, 10, 14, 20]
    for smaller, larger in pairwise(shares):
        assert smaller < larger
    for share in shares:
        assert sum(int(path) % 2 for path in share) == len(share) / 2
    assert chosen(train_fraction=0.5) == shares[1]
    assert chosen(train_fraction=0.5, seed=1) != shares[1]


def test_only_training_images_are_left_out_and_the_rest_is_as_it_was() -> None:
    whole, half = build(recipe()).splits, build(recipe(train_fraction=0.5)).splits
    for name in ("val", "test"):
        assert half[name].fingerprint == whole[name].fingerprint
    for index in range(len(half["train"])):
        sample = half["train"][index]
        original = whole["train"][int(sample.path)]
        assert sample.index == index
        assert torch.equal(sample.image, original.image)
        assert (sample.label, sample.group, sample.mask is None) == (
            original.label, original.group, original.mask is None,
        )  # fmt: skip


def test_masks_are_taken_from_what_is_left_and_the_run_says_how_many(tmp_path: Path) -> None:
    run = train(
        recipe(train_fraction=0.5, mask_fraction=0.5, stages=[{"epochs": 1, "lr": 1e-3}]), output=tmp_path / "run"
    )
    train_split = build(recipe(train_fraction=0.5)).splits["train"]
    assert run.facts["data"]["train"]["images"] == 10
    assert run.facts["data"]["train"]["masks"] == round(0.5 * int(train_split.has_mask.sum()))


@pytest.mark.parametrize("share", [0, 1.5, 0.01])
def test_train_fraction_out_of_range_raises(share: float) -> None:
    with pytest.raises(SightlineError, match="train_fraction is"):
        build(recipe(train_fraction=share))
