"""Boxes around what maps and masks point out, for a whole batch at once.

Boxes are (x1, y1, x2, y2) in pixels: the first pixel of an image is the box (0, 0, 1, 1).
"""

import torch
from torch import Tensor

from sightline._core.tensors import check_shape
from sightline.errors import SightlineError


def components(mask: Tensor, connectivity: int = 8) -> Tensor:
    """Return the connected parts of masks.

    The nodes are the horizontal runs of pixels, far fewer than the pixels, and the edges join runs that touch in adjacent rows.
    Every run takes the smallest number among those that it is joined to, and then the number of that run in turn, until no edge
    joins two numbers (Shiloach & Vishkin, "An O(log n) Parallel Connectivity Algorithm", 1982).

    Args:
        mask: (B, H, W) bool.
        connectivity: 8, or 4 where pixels that touch at a corner alone are not connected.

    Returns:
        (B, H, W) int64: 0 outside the mask, else 1 + the place, in row order, of the part's first pixel in its image.
    """
    check_shape(mask, "mask", (len(mask), "H", "W"), dtype=torch.bool)
    if connectivity not in (4, 8):
        raise SightlineError(f"connectivity is {connectivity}; accepted are 4 and 8")
    if mask.device.type != "cpu":  # the loop below asks for values again and again; one copy waits once
        return components(mask.cpu(), connectivity).to(mask.device, non_blocking=True)
    starts, ends = mask.clone(), mask.clone()
    starts[..., 1:] &= ~mask[..., :-1]
    ends[..., :-1] &= ~mask[..., 1:]
    begin, end = (marks.flatten().nonzero()[:, 0] for marks in (starts, ends))
    first, second = _touching(begin, end, mask.shape[1], mask.shape[2], reach=connectivity // 8)

    number = torch.arange(len(begin), device=mask.device)
    while True:
        one, other = number[first], number[second]
        if torch.equal(one, other):
            break
        number.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        while not torch.equal(number, following := number[number]):
            number = following

    label = 1 + begin[number] % (mask.shape[1] * mask.shape[2])
    run = starts.flatten().cumsum(0).view(mask.shape)  # counted from 1
    return torch.cat([label.new_zeros(1), label])[run].masked_fill_(~mask, 0)


def component_of_peak(maps: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the part of each map above a threshold that holds its maximum; of several maxima, the first in row order.

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
    """Return the smallest box around each mask.

    Args:
        mask: (B, H, W) bool.

    Returns:
        Boxes (B, 4) float32 xyxy in pixels, zeros for an empty mask; and found (B,) bool, the masks that are not empty.
    """
    check_shape(mask, "mask", (len(mask), "H", "W"), dtype=torch.bool)
    sides = []
    for line in (mask.any(1), mask.any(2)):  # along x, along y
        numbers = torch.arange(line.shape[1], device=mask.device)
        first = numbers.where(line, line.shape[1]).amin(1)
        sides.append((first, (numbers + 1).where(line, 0).amax(1)))
    (x1, x2), (y1, y2) = sides
    found = x2 > 0
    return torch.stack([x1, y1, x2, y2], 1) * found[:, None].float(), found


def tight_box(region: Tensor) -> tuple[int, int, int, int]:
    """Return the smallest box around a non-empty region (H, W) bool, as whole pixels (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = tight_boxes(region[None])[0][0].int().tolist()
    return x1, y1, x2, y2


def peak_boxes(maps: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return the smallest box around the `component_of_peak` of each map, as `tight_boxes` does; none if nothing is above."""
    return tight_boxes(component_of_peak(maps, threshold))


def _touching(begin: Tensor, end: Tensor, height: int, width: int, reach: int) -> tuple[Tensor, Tensor]:
    """Pairs of runs in adjacent rows that touch, enough of them to join all that do.

    Of the runs in an adjacent row that a run touches, the first will do, if both rows are asked: each of the others touches
    no run before this one, and so names it as its own first.

    Args:
        begin: (R,) the place of each run's first pixel, in row order over the whole batch.
        end: (R,) that of its last pixel.
        height: of the images.
        width: of the images.
        reach: how many pixels beyond its ends a run touches in an adjacent row: 1 where corners connect, else 0.
    """
    row, left, right = begin // width, begin % width - reach, end % width + reach
    pairs = []
    for adjacent in (row - 1, row + 1):
        place = adjacent * width + left.clamp_min(0)
        candidate = torch.searchsorted(end, place).clamp_max(max(len(end) - 1, 0))  # the first to end there or later
        touches = (end[candidate] >= place) & (row[candidate] == adjacent) & (begin[candidate] % width <= right)
        touches &= adjacent // height == row // height  # not the next image's first row
        pairs.append(torch.stack([touches.nonzero()[:, 0], candidate[touches]]))
    first, second = torch.cat(pairs, 1)
    return first, second
