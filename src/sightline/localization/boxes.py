"""Boxes around what maps and masks point out, for a whole batch at once on its device.

Boxes are (x1, y1, x2, y2) in pixels: the first pixel of an image is the box (0, 0, 1, 1).
"""

import torch
from torch import Tensor

from sightline.errors import SightlineError


def components(mask: Tensor, connectivity: int = 8) -> Tensor:
    """The connected parts of masks.

    The nodes are the horizontal runs of pixels, far fewer than the pixels, and the edges join runs that touch in adjacent rows.
    Every run takes the least number among those that it is joined to, and then the number of that run in turn, until no edge
    joins two numbers (Shiloach & Vishkin, "An O(log n) Parallel Connectivity Algorithm", 1982).

    Args:
        mask: (B, H, W) bool.
        connectivity: 8, or 4 where pixels that touch at a corner alone are not connected.

    Returns:
        (B, H, W) int64: 0 outside the mask, else 1 + the place, in row order, of the part's first pixel in its image.
    """
    _check_mask(mask)
    if connectivity not in (4, 8):
        raise SightlineError(f"connectivity is {connectivity}; accepted are 4 and 8")
    starts = mask.clone()
    starts[..., 1:] &= ~mask[..., :-1]
    runs = starts.flatten().cumsum(0).view(mask.shape) - 1  # the run of every pixel in the mask
    first, second = _touching(mask, starts, runs, (0,) if connectivity == 4 else (-1, 0, 1))

    places = starts.flatten().nonzero()[:, 0]
    number = torch.arange(len(places), device=mask.device)
    while True:
        one, other = number[first], number[second]
        if torch.equal(one, other):
            break
        number.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        while not torch.equal(number, following := number[number]):
            number = following

    labels = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
    labels[mask] = 1 + places[number[runs[mask]]] % (mask.shape[1] * mask.shape[2])
    return labels


def component_of_peak(maps: Tensor, threshold: float = 0.5) -> Tensor:
    """The part of each map above a threshold that holds the map's maximum, of several maxima the first in row order.

    Args:
        maps: (B, H, W), any finite values.
        threshold: least value, itself left out, of a pixel that the map points out.

    Returns:
        (B, H, W) bool; pixels that touch at a corner are connected. Nothing where no pixel is above the threshold.
    """
    region = maps > threshold
    labels = components(region)
    peak = maps.flatten(1).argmax(1, keepdim=True)
    return region & (labels == labels.flatten(1).gather(1, peak)[..., None])


def tight_boxes(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box around each mask.

    Args:
        mask: (B, H, W) bool.

    Returns:
        Boxes (B, 4) float32 xyxy in pixels, zeros for an empty mask; and found (B,) bool, the masks that are not empty.
    """
    _check_mask(mask)
    sides = []
    for line in (mask.any(1), mask.any(2)):  # along x, along y
        numbers = torch.arange(line.shape[1], device=mask.device)
        first = numbers.where(line, line.shape[1]).amin(1)
        sides.append((first, (numbers + 1).where(line, 0).amax(1)))
    (x1, x2), (y1, y2) = sides
    found = x2 > 0
    return torch.stack([x1, y1, x2, y2], 1) * found[:, None].float(), found


def _touching(mask: Tensor, starts: Tensor, runs: Tensor, shifts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The pairs of runs in adjacent rows that touch, the lower one looked at `shift` pixels further right."""
    width = mask.shape[2]
    pairs = []
    for shift in shifts:
        above = (slice(None), slice(None, -1), slice(max(0, -shift), width - max(0, shift)))
        below = (slice(None), slice(1, None), slice(max(0, shift), width - max(0, -shift)))
        # Where two runs overlap, one of them starts: one pixel for each pair.
        touch = mask[above] & mask[below] & (starts[above] | starts[below])
        pairs.append(torch.stack([runs[above][touch], runs[below][touch]]))
    first, second = torch.cat(pairs, 1)
    return first, second


def _check_mask(mask: Tensor) -> None:
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise SightlineError(f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype}; expected (B, H, W) bool")
