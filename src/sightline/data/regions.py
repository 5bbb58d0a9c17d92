"""Where the object is, by its mask or by boxes: what a guide holds a map against."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sightline.data.batch import Batch, class_masks, non_empty
from sightline.errors import unknown_name

SOURCES = ("masks", "boxes")


@dataclass(frozen=True)
class Region:
    """The object of each image.

    Attributes:
        inside: (B, H, W) how much of each pixel belongs to the object, in [0, 1].
        outside: (B, H, W) how much of it belongs to the background; a pixel that the mask ignores belongs to neither.
        known: (B,) bool, the images that have an object with an area.
    """

    inside: Tensor
    outside: Tensor
    known: Tensor

    def at(self, size: tuple[int, int]) -> "Region":
        """Return the region on a coarser grid (h, w): the share of each place that it covers."""
        inside, outside = (interpolate(part[:, None], size, mode="area")[:, 0] for part in (self.inside, self.outside))
        return Region(inside, outside, self.known)


def object_region(batch: Batch, source: str) -> Region:
    """The object by `"masks"`, the labelled class's where there are several, or by the union of the `"boxes"`."""
    if source == "masks":
        inside, outside = _from_masks(batch)
    else:
        inside, outside = _from_boxes(batch)
    return Region(inside, outside, non_empty(inside))


def fill_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (..., H, W) bool whose centres lie in boxes (..., 4) xyxy, for images of a size (H, W)."""
    y, x = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    left, top, right, bottom = (edge[..., None] for edge in boxes.unbind(-1))
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return down[..., :, None] & across[..., None, :]


def check_source(source: str) -> None:
    """Refuse anything but "masks" and "boxes"."""
    if source not in SOURCES:
        raise unknown_name("region", source, SOURCES)


def _from_masks(batch: Batch) -> tuple[Tensor, Tensor]:
    masks, images = batch.masks, batch.images
    if masks is None or batch.has_mask is None:
        return _nothing(batch)
    masks = class_masks(masks, batch.labels)
    inside, outside = (masks, 1 - masks) if masks.is_floating_point() else (masks == 1, masks == 0)
    present = batch.has_mask[:, None, None]
    return (inside * present).to(images.dtype), (outside * present).to(images.dtype)


def _from_boxes(batch: Batch) -> tuple[Tensor, Tensor]:
    """A box beside the image or without an area holds no pixel."""
    if batch.boxes is None or batch.has_box is None:
        return _nothing(batch)
    size = (batch.images.shape[-2], batch.images.shape[-1])
    inside = (fill_boxes(batch.boxes, size) & batch.has_box[..., None, None]).any(1)
    present = batch.has_box.any(1)[:, None, None]
    return inside.to(batch.images.dtype), (~inside & present).to(batch.images.dtype)


def _nothing(batch: Batch) -> tuple[Tensor, Tensor]:
    nothing = torch.zeros_like(batch.images[:, 0], requires_grad=False)
    return nothing, nothing
