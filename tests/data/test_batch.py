"""Masks of a batch: one per image, and which of them are empty."""

import pytest
import torch

from sightline import SightlineError
from sightline.data.batch import class_masks, non_empty

MASKS = torch.arange(2 * 3 * 4).reshape(2, 3, 2, 2).to(torch.uint8)  # two images, three classes


def test_class_masks_of_several_classes_picks_each_images_class() -> None:
    chosen = class_masks(MASKS, torch.tensor([2, 0]))
    assert torch.equal(chosen, torch.stack([MASKS[0, 2], MASKS[1, 0]]))


def test_class_masks_single_mask_belongs_to_every_class() -> None:
    assert torch.equal(class_masks(MASKS[:, :1], torch.tensor([2, 0])), MASKS[:, 0])
    assert torch.equal(class_masks(MASKS[:, 0]), MASKS[:, 0])
    assert torch.equal(class_masks(MASKS[:, 0], torch.tensor([1, 1])), MASKS[:, 0])


def test_class_masks_without_classes_raises() -> None:
    with pytest.raises(SightlineError, match="masks have 3 classes; expected targets"):
        class_masks(MASKS)
    with pytest.raises(SightlineError, match=r"masks have shape \(2, 2\)"):
        class_masks(MASKS[0, 0])


def test_non_empty_with_one_pixel_is_true_and_with_none_is_false() -> None:
    regions = torch.zeros(3, 2, 4, 4)
    regions[0, 1, 3, 3], regions[2, 0, 0, 0] = 1.0, 0.01
    assert non_empty(regions).tolist() == [True, False, True]
    assert non_empty(regions > 0.5).tolist() == [True, False, False]
