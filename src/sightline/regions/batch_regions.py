"""Where the object is, by its mask or by boxes, or what is to be avoided: what a guide holds a map against."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sightline.data.batch import Batch, class_masks, non_empty
from sightline.errors import unknown_name

Source = Literal["masks", "boxes", "avoid"]
"""What says where to look; each is an attribute of `Batch`."""
SOURCES: tuple[Source, ...] = get_args(Source)
OBJECTS: tuple[Source, ...] = ("masks", "boxes")


@dataclass(frozen=True)
class Region:
    """Where a model should look in each image, and where not; a pixel that a mask ignores belongs to nothing.

    Attributes:
        inside: (B, H, W) how much of each pixel a model should look at, in [0, 1]: the object.
        outside: (B, H, W) how much of it a model should not look at: the background, or what is to be avoided.
        free: (B, H, W) how much of it is neither wanted nor unwanted: all but what is to be avoided.
        known: (B,) bool, the images that have an object with an area, or something to avoid that leaves a pixel free.
    """

    inside: Tensor
    outside: Tensor
    free: Tensor
    known: Tensor

    def at(self, size: tuple[int, int]) -> "Region":
        """Return the region on a coarser grid (h, w): the share of each place that it covers."""
        inside, outside, free = (
            interpolate(part[:, None], size, mode="area")[:, 0] for part in (self.inside, self.outside, self.free)
        )
        return Region(inside, outside, free, self.known)


def object_region(batch: Batch, source: Source) -> Region:
    """Return the region of each image.

    Args:
        batch: the images with their annotations.
        source: the object by `"masks"`, the labelled class's where there are several, or by the union of the `"boxes"`; or
            what to `"avoid"`, where all else is free.
    """
    if source == "avoid":
        avoided, free = _split(batch, batch.avoid, batch.has_avoid)
        return Region(torch.zeros_like(free), avoided, free, non_empty(avoided) & non_empty(free))
    if source == "masks":
        masks = None if batch.masks is None else class_masks(batch.masks, batch.labels)
        inside, outside = _split(batch, masks, batch.has_mask)
    else:
        inside, outside = _from_boxes(batch)
    return Region(inside, outside, torch.zeros_like(inside), non_empty(inside))


def fill_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pixels (..., H, W) bool whose centres are inside boxes (..., 4) xyxy, for images of a size (H, W)."""
    y, x = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    left, top, right, bottom = (edge[..., None] for edge in boxes.unbind(-1))
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return down[..., :, None] & across[..., None, :]


def check_source(source: str, choices: Sequence[Source] = SOURCES) -> Source:
    """Return a source, and reject anything that is none of the choices."""
    for choice in choices:
        if source == choice:
            return choice
    raise unknown_name("region", source, choices)


def _split(batch: Batch, masks: Tensor | None, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what masks (B, H, W) cover and what they leave; nothing where they are not known (B,)."""
    if masks is None or known is None:
        return _nothing(batch)
    inside, outside = (masks, 1 - masks) if masks.is_floating_point() else (masks == 1, masks == 0)
    present = known[:, None, None]
    return (inside * present).to(batch.images.dtype), (outside * present).to(batch.images.dtype)


def _from_boxes(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the pixels inside each box; a box outside the image or without an area holds none."""
    if batch.boxes is None or batch.has_box is None:
        return _nothing(batch)
    size = (batch.images.shape[-2], batch.images.shape[-1])
    inside = (fill_boxes(batch.boxes, size) & batch.has_box[..., None, None]).any(1)
    present = batch.has_box.any(1)[:, None, None]
    return inside.to(batch.images.dtype), (~inside & present).to(batch.images.dtype)


def _nothing(batch: Batch) -> tuple[Tensor, Tensor]:
    nothing = torch.zeros_like(batch.images[:, 0], requires_grad=False)
    return nothing, nothing
