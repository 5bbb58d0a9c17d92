from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from sightline.data.dataset import InMemory
from sightline.data.loader import create_loader
from sightline.datasets.derived.mask_quality import DegradedMasks, boxed, coarse, dilated
from sightline.errors import SightlineError


def kept(dataset: DegradedMasks) -> set[int]:
    return set(dataset.has_mask.nonzero()[:, 0].tolist())


def shapes(seed: int, height: int = 16, width: int = 24) -> Tensor:
    """A few random pixels, grown."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(height, width, generator=draw) < 0.02
    points[torch.randint(height, (), generator=draw), torch.randint(width, (), generator=draw)] = True
    return dilated(points, 0.15)


@pytest.mark.parametrize("seed", range(5))
def test_a_larger_fraction_contains_a_smaller_one(make_objects: Callable[..., InMemory], seed: int) -> None:
    dataset, before = make_objects(21), set[int]()
    for twentieths in range(21):
        now = kept(DegradedMasks(dataset, fraction=twentieths / 20, seed=seed))
        assert before <= now
        assert len(now) == round(21 * twentieths / 20)
        before = now


def test_every_class_keeps_its_share(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(30, classes=("a", "b", "c"))
    for fraction in (0.1, 0.2, 0.5, 0.7):
        counts = dataset.labels[list(kept(DegradedMasks(dataset, fraction=fraction)))].bincount(minlength=3)
        assert (counts - 10 * fraction).abs().max() <= 1


def test_the_choice_depends_only_on_the_seed(make_objects: Callable[..., InMemory]) -> None:
    one, again, other = (DegradedMasks(make_objects(20), fraction=0.5, seed=seed) for seed in (1, 1, 2))
    assert kept(one) == kept(again) != kept(other)
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_images_without_masks_stay_without(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(20)
    half = InMemory([replace(dataset[i], mask=dataset[i].mask if i < 10 else None) for i in range(20)], "ab", "half")
    assert kept(DegradedMasks(half, fraction=1.0)) == set(range(10))
    assert kept(DegradedMasks(half, fraction=0.4)) < set(range(10))
    assert len(kept(DegradedMasks(half, fraction=0.4))) == 4
    with pytest.raises(SightlineError, match="no image has a mask"):
        DegradedMasks(InMemory([replace(dataset[i], mask=None) for i in range(4)], "ab", "none"))


def test_degraded_masks_change_only_the_masks(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(10)
    changed = DegradedMasks(dataset, fraction=0.5)
    for i in range(10):
        one, other = dataset[i], changed[i]
        assert torch.equal(one.image, other.image)
        assert (one.label, one.index, one.path) == (other.label, other.index, other.path)
        assert other.mask is None if i not in kept(changed) else torch.equal(one.mask, other.mask)
    plain, fewer = (next(iter(create_loader(d, size=16, batch_size=10, train=True))) for d in (dataset, changed))
    assert torch.equal(plain.images, fewer.images)  # the augmentation does not depend on the masks
    assert fewer.has_mask.sum() == 5


@settings(deadline=None)
@given(seed=st.integers(0, 100))
def test_qualities_turn_with_the_mask(seed: int) -> None:
    inside = shapes(seed)
    for quality in (boxed, lambda m: dilated(m, 0.1), lambda m: coarse(m, 6)):
        for dims in ((0,), (1,), (0, 1)):
            assert torch.equal(quality(inside.flip(dims)), quality(inside).flip(dims))
        assert torch.equal(quality(inside.T), quality(inside).T)


@settings(deadline=None)
@given(seed=st.integers(0, 100))
def test_boxes_and_dilations_contain_the_mask(seed: int) -> None:
    inside = shapes(seed)
    box = boxed(inside)
    rows, columns = inside.nonzero().T
    expected = torch.zeros_like(inside)
    expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert torch.equal(box, expected)
    assert torch.equal(boxed(box), box)
    small, large = dilated(inside, 0.05), dilated(inside, 0.2)
    assert (inside <= small).all()
    assert (small <= large).all()


def test_a_pixel_dilates_to_a_disc() -> None:
    inside = torch.zeros(20, 30, dtype=torch.bool)
    inside[9, 14] = True
    y, x = torch.meshgrid(torch.arange(20) - 9, torch.arange(30) - 14, indexing="ij")
    assert torch.equal(dilated(inside, 0.15), y**2 + x**2 <= 9)


def test_coarse_keeps_the_cells_that_are_half_covered() -> None:
    inside = torch.zeros(4, 8, dtype=torch.bool)
    inside[0:2, 0] = True  # half of the cell at the upper left
    inside[3, 7] = True  # a quarter of that at the lower right
    grid = coarse(inside, 4)
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[0:2, 0:2] = True
    assert torch.equal(grid, expected)
    thin = torch.zeros(4, 8, dtype=torch.bool)
    thin[3, 7] = True
    assert coarse(thin, 4).nonzero().tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]
    assert torch.equal(coarse(inside, 8), inside)


@pytest.mark.parametrize("quality", ["coarse", "dilated", "box"])
def test_changed_masks_are_masks(make_objects: Callable[..., InMemory], quality: str) -> None:
    dataset = make_objects(4, box=(9, 5, 20, 14))
    samples = [dataset[i] for i in range(4)]
    samples[1].mask[:] = 0
    samples[2].mask[0, 0] = 255
    samples[3] = replace(samples[3], mask=tv_tensors.Mask(torch.stack([samples[3].mask, samples[1].mask])))
    changed = DegradedMasks(InMemory(samples, "ab", "odd"), quality=quality)
    masks = [changed[i].mask for i in range(4)]
    assert all(mask.dtype == torch.uint8 for mask in masks)
    assert masks[0].unique().tolist() == [0, 1]
    assert not masks[1].any()  # no object stays no object
    assert masks[2].max() == 1
    assert masks[3].shape == (2, 24, 32)
    assert torch.equal(masks[3][0], masks[0])
    assert not masks[3][1].any()


def test_wrong_masks_are_those_of_other_images(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(20)
    samples = []
    for i in range(20):
        mask = torch.zeros(24, 32, dtype=torch.uint8)
        mask[i, : i + 1] = 1
        samples.append(replace(dataset[i], mask=tv_tensors.Mask(mask)))
    dataset = InMemory(samples, "ab", "lines")

    def wrong(share: float, **options: float) -> set[int]:
        changed = DegradedMasks(dataset, quality="wrong", share=share, **options)
        found = set()
        for i in changed.has_mask.nonzero()[:, 0].tolist():
            row = int(changed[i].mask.any(1).nonzero()[0])
            assert torch.equal(changed[i].mask, dataset[row].mask)
            found |= {i} if row != i else set()
        return found

    assert len(wrong(0.5)) == 10
    assert wrong(0.25) < wrong(0.5) < wrong(1.0) == set(range(20))
    assert wrong(0.5, fraction=0.4) <= wrong(0.5)  # the mask of an image is wrong whatever the fraction
    assert wrong(0.0) == set()


def test_wrong_masks_fit_their_images(make_objects: Callable[..., InMemory]) -> None:
    one, other = make_objects(2)._samples
    other = replace(other, mask=tv_tensors.Mask(torch.ones(12, 8, dtype=torch.uint8)), image=other.image[:, :12, :8])
    changed = DegradedMasks(InMemory([one, other], "ab", "two sizes"), quality="wrong", share=1.0)
    assert changed[0].mask.shape == (24, 32)
    assert changed[0].mask.eq(1).all()
    assert changed[1].mask.shape == (12, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, r"fraction is 1\.5"),
        ({"share": -1}, "share is -1"),
        ({"cells": 0}, "cells is 0"),
        ({"radius": 0}, "radius is 0"),
        ({"quality": "boxes"}, "quality is 'boxes'; expected 'coarse' or"),
    ],
)
def test_degraded_masks_invalid_options_raise(
    make_objects: Callable[..., InMemory], options: dict[str, object], message: str
) -> None:
    with pytest.raises(SightlineError, match=message):
        DegradedMasks(make_objects(4), **options)


def test_one_mask_cannot_be_another_s(make_objects: Callable[..., InMemory]) -> None:
    first, *_, last = make_objects(4)._samples
    with pytest.raises(SightlineError, match="only one has a mask"):
        DegradedMasks(InMemory([first, replace(last, mask=None)], "ab", "one"), quality="wrong")
