"""Boxes from maps and masks: worked by hand, and against SciPy and torchvision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from torch import Tensor
from torchvision.ops import masks_to_boxes

from sightline.errors import SightlineError
from sightline.regions.boxes import component_of_peak, components, tight_boxes


def drawn(*rows: str) -> Tensor:
    return torch.tensor([[pixel == "#" for pixel in row] for row in rows])


def spiral(side: int) -> Tensor:
    """One long path, whose pixels far along it lie side by side."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    row, column, direction = 0, 0, (0, 1)
    mask[0, 0] = True
    while True:
        ahead = [(row + i * direction[0], column + i * direction[1]) for i in (1, 2)]
        inside = [0 <= y < side and 0 <= x < side for y, x in ahead]
        if not inside[0] or (inside[1] and mask[ahead[1]]):
            direction = (direction[1], -direction[0])
            ahead = [(row + i * direction[0], column + i * direction[1]) for i in (1, 2)]
            if not all(0 <= y < side and 0 <= x < side and not mask[y, x] for y, x in ahead):
                return mask
        row, column = ahead[0]
        mask[row, column] = True


def numbered(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """SciPy's parts of one mask, under our numbers."""
    parts, count = ndimage.label(mask, ndimage.generate_binary_structure(2, connectivity // 4))
    labels = np.zeros(mask.shape, dtype=np.int64)
    for part in range(1, count + 1):
        labels[parts == part] = 1 + np.flatnonzero(parts == part)[0]
    return labels


def test_components_have_the_expected_labels() -> None:
    mask = drawn("#.##", ".#..", "...#")
    assert components(mask[None])[0].tolist() == [[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 12]]
    assert components(mask[None], connectivity=4)[0].tolist() == [[1, 0, 3, 3], [0, 6, 0, 0], [0, 0, 0, 12]]


def test_images_of_a_batch_do_not_touch_nor_do_the_ends_of_rows() -> None:
    masks = torch.stack([drawn("...", "..#"), drawn("#..", "..."), drawn("..#", "#..")])
    assert [components(masks)[i].unique().tolist() for i in range(3)] == [[0, 6], [0, 1], [0, 3, 4]]


@pytest.mark.parametrize("connectivity", [4, 8])
@settings(deadline=None)
@given(masks=arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_parts_are_scipys(masks: np.ndarray, connectivity: int) -> None:
    ours = components(torch.from_numpy(masks), connectivity)
    assert np.array_equal(ours, np.stack([numbered(mask, connectivity) for mask in masks]))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_winding_and_scattered_parts_are_scipys(connectivity: int) -> None:
    checkers = (torch.arange(64)[:, None] + torch.arange(64)) % 2 == 0
    comb = torch.ones(64, 64, dtype=torch.bool)
    comb[:-1, 1::2] = False  # teeth that meet in the last row only
    noise = [torch.rand(64, 64) < density for density in (0.3, 0.41, 0.5, 0.59, 0.7)]
    masks = torch.stack([spiral(64), checkers, comb, comb.flip(0), comb.T, *noise, *(~n for n in noise)])
    assert spiral(64).sum() > 64**2 / 3
    ours = components(masks, connectivity)
    assert np.array_equal(ours, np.stack([numbered(mask.numpy(), connectivity) for mask in masks]))


def test_component_of_peak_takes_the_first_maximum() -> None:
    one = torch.tensor([[0.6, 0.0, 0.9, 0.7], [0.6, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0]])
    tied = torch.tensor([[0.0, 0.6, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    low = torch.full((3, 4), 0.5)  # the threshold itself is left out
    parts = component_of_peak(torch.stack([one, tied, low]))
    assert torch.equal(parts[0], drawn("..##", "....", "...."))
    assert torch.equal(parts[1], drawn("...#", "....", "...."))  # the first in row order
    assert not parts[2].any()
    assert torch.equal(component_of_peak(tied[None] - 3, threshold=-3.0)[0], drawn("...#", "....", "...."))
    assert torch.equal(component_of_peak(tied[None].mT, threshold=0.5)[0], drawn(".#.", "#..", "...", "..."))


def test_tight_boxes_have_the_expected_corners() -> None:
    masks = torch.stack([drawn("....", ".#..", "..#."), drawn("....", "....", "...."), drawn("####", "####", "####")])
    boxes, found = tight_boxes(masks)
    assert boxes.tolist() == [[1, 1, 3, 3], [0, 0, 0, 0], [0, 0, 4, 3]]
    assert found.tolist() == [True, False, True]


def test_boxes_are_torchvisions() -> None:
    masks = torch.rand(50, 7, 11) > 0.95
    masks[torch.arange(50), torch.randint(7, (50,)), torch.randint(11, (50,))] = True
    inclusive = masks_to_boxes(masks)  # whose last pixel belongs to the box
    assert torch.equal(tight_boxes(masks)[0], inclusive + torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_components_of_empty_masks_are_empty() -> None:
    assert components(torch.zeros(0, 3, 3, dtype=torch.bool)).shape == (0, 3, 3)
    assert not components(torch.zeros(2, 3, 3, dtype=torch.bool)).any()


def test_components_and_boxes_invalid_masks_raise() -> None:
    with pytest.raises(
        SightlineError, match=r"mask has shape \(2, 2\) and dtype torch.bool; expected \(2, H, W\) bool"
    ):
        components(torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(SightlineError, match=r"dtype torch\.float32"):
        tight_boxes(torch.ones(1, 2, 2))
    with pytest.raises(SightlineError, match="connectivity is 6; accepted are 4 and 8"):
        components(torch.ones(1, 2, 2, dtype=torch.bool), connectivity=6)
