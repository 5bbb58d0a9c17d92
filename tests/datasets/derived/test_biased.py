"""Manual biases in training images."""

import pytest
import torch
from torch import Tensor

from sightline.data import DATASETS
from sightline.datasets.derived.biased import Biased, change
from sightline.errors import SightlineError

DIGITS = {"name": "digits", "copies": 1, "size": 32}


def test_a_bias_moves_values_by_half_of_their_standard_deviation_or_scales_them() -> None:
    image = torch.tensor([40, 60, 100, 120], dtype=torch.uint8).reshape(1, 2, 2)  # mean 80, deviations 40, 20, 20, 40
    deviation = ((1600 + 400 + 400 + 1600) / 4) ** 0.5  # 31.62
    half = round(deviation / 2)
    assert change(image, "brighter").flatten().tolist() == [40 + half, 60 + half, 100 + half, 120 + half]
    assert change(image, "darker").flatten().tolist() == [40 - half, 60 - half, 100 - half, 120 - half]
    assert change(image, "scaled").flatten().tolist() == [60, 90, 150, 180]
    ends = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).reshape(1, 2, 2)
    assert change(ends, "brighter").amax() == 255
    assert change(ends, "darker").amin() == 0
    assert change(ends, "scaled").flatten().tolist() == [0, 255, 255, 0]


def test_most_training_images_are_changed_an_equal_share_of_each_class_and_nothing_else_is() -> None:
    plain, made = DATASETS.create(**DIGITS), DATASETS.create("biased", source=DIGITS, bias="scaled")
    images = made["train"]
    assert isinstance(images, Biased)
    for label in range(5):
        members = plain["train"].labels == label
        assert int((~images.biased[members]).sum()) == round(0.2 * int(members.sum()))
    for index in (0, 1, 2, 3, 4, 5, 6, 7):
        before, after = plain["train"][index], images[index]
        expected = change(before.image.as_subclass(Tensor), "scaled") if images.biased[index] else before.image
        assert torch.equal(after.image, expected)
        assert torch.equal(after.mask, before.mask)
        assert (after.label, after.group, after.path) == (before.label, before.group, before.path)
    assert made["test_shifted"].fingerprint == plain["test_shifted"].fingerprint
    assert images.fingerprint != plain["train"].fingerprint


def test_the_seed_draws_the_images_and_the_bias_does_not() -> None:
    first, again, other, third = (
        DATASETS.create("biased", source=DIGITS, bias=bias, seed=seed)["train"]
        for bias, seed in (("brighter", 0), ("darker", 0), ("brighter", 1), ("brighter", 0))
    )
    assert torch.equal(first.biased, again.biased)
    assert not torch.equal(first.biased, other.biased)
    assert first.fingerprint == third.fingerprint
    assert len({each.fingerprint for each in (first, again, other)}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "brigter"}, "'brighter'"),
        ({"bias": "darker", "share": 1.0}, "share is 1.0"),
        ({"bias": "darker", "source": {"copies": 1}}, "needs the name"),
        ({}, "'bias'"),
    ],
)
def test_biased_invalid_options_raise(options: dict, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        DATASETS.create("biased", **{"source": DIGITS, **options})
