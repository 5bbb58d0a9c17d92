"""The batch that every loader yields and every objective takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from sightline._core.tensors import check_images
from sightline.errors import SightlineError


@dataclass
class Batch:
    """Images with their labels, and what else is known of each of them.

    Only `images` and `labels` are required. Beside every optional annotation stands a flag that says which images have
    it, because a missing mask and an empty one differ: the first says nothing, the second says that there is no object.

    Args:
        images: (B, C, H, W) float, in [0, 1] where an `InputSpec` normalises later.
        labels: (B,) int64 class indices; or (B, K) int64 with 1 for every class that an image shows, else 0.
        masks: (B, H, W), or (B, K, H, W) with K = 1 or the number of classes: uint8 with 0 = background,
            1 = object, 255 = ignore; or float in [0, 1].
        has_mask: (B,) bool; default: every image, where `masks` is given.
        boxes: (B, N, 4) float, xyxy in pixels, padded to N boxes an image.
        has_box: (B, N) bool, which boxes are real; default: all, where `boxes` is given.
        indices: (B,) int64, each image's place in its data set.
        groups: (B,) int64, such as the pair (class, background) of a shortcut benchmark.
        maps: (B, H, W) float, stored explanations of the images, moved with them; every image has one.
        parts: (B, P, H, W) uint8 with 1 = one part of the image's objects, padded by empty masks to P parts an image.

    Raises:
        SightlineError: a shape, dtype or range is not as above, or a size differs from that of the images.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None
    has_mask: Tensor | None = None
    boxes: Tensor | None = None
    has_box: Tensor | None = None
    indices: Tensor | None = None
    groups: Tensor | None = None
    maps: Tensor | None = None
    parts: Tensor | None = None

    def __post_init__(self) -> None:
        check_images(self.images)
        size = self.images.shape[0]
        one_column = self.labels.ndim == 2 and self.labels.shape[1] == 1
        if (
            self.labels.ndim not in (1, 2)
            or one_column
            or self.labels.shape[0] != size
            or self.labels.dtype != torch.int64
        ):
            raise SightlineError(
                f"labels have shape {tuple(self.labels.shape)} and dtype {self.labels.dtype}; expected ({size},) int64, 0 or 1 "
                f"of two classes, or ({size}, K) with K >= 2 where images can have several"
            )
        if self.masks is not None:
            self._check_masks(self.masks)
            if self.has_mask is None:
                self.has_mask = torch.ones(size, dtype=torch.bool, device=self.masks.device)
        elif self.has_mask is not None:
            raise SightlineError("has_mask was given without masks")
        if self.boxes is not None:
            if self.boxes.ndim != 3 or self.boxes.shape[0] != size or self.boxes.shape[2] != 4:
                raise SightlineError(
                    f"boxes have shape {tuple(self.boxes.shape)}; expected ({size}, N, 4), xyxy in pixels"
                )
            if self.has_box is None:
                self.has_box = torch.ones(self.boxes.shape[:2], dtype=torch.bool, device=self.boxes.device)
        elif self.has_box is not None:
            raise SightlineError("has_box was given without boxes")
        if self.maps is not None and self.maps.shape != (size, *self.images.shape[2:]):
            expected = (size, *self.images.shape[2:])
            raise SightlineError(f"maps have shape {tuple(self.maps.shape)}; expected {expected}, as the images")
        if self.parts is not None and (
            self.parts.ndim != 4 or len(self.parts) != size or self.parts.shape[2:] != self.images.shape[2:]
        ):
            accepted = f"({size}, P, {self.images.shape[2]}, {self.images.shape[3]})"
            raise SightlineError(f"parts have shape {tuple(self.parts.shape)}; expected {accepted}, as the images")
        for name in ("has_mask", "has_box", "indices", "groups"):
            value = getattr(self, name)
            if value is not None and value.shape[0] != size:
                raise SightlineError(f"{name} has {value.shape[0]} rows; the batch has {size} images")

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several labels."""
        return self.labels.ndim == 2

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, as a DataLoader asks for it."""
        return self._map(Tensor.pin_memory)

    def each_label(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One label of every image at a time, until all have come up.

        Yields:
            Classes (B,), and which images (B,) bool had a label left; the others repeat their first.
        """
        if not self.multi_label:
            yield self.labels, torch.ones_like(self.labels, dtype=torch.bool)
            return
        present_first = self.labels.argsort(dim=1, descending=True, stable=True)
        counts = self.labels.sum(1)
        for number in range(max(1, int(counts.max()))):
            left = number < counts
            yield torch.where(left, present_first[:, number], present_first[:, 0]), left

    def object_masks(self) -> Tensor:
        """The labelled object of each image as float (B, H, W) in [0, 1]; pixels marked 255 count as background.

        Where an image has several labels, it is the union of their objects.

        Raises:
            SightlineError: the batch has no masks.
        """
        masks = self._need_masks()
        if masks.ndim == 4 and masks.shape[1] > 1 and self.multi_label:
            return (self._as_float(masks) * self.labels[..., None, None]).amax(1)
        return self.masks_of(self.labels)

    def masks_of(self, classes: Tensor) -> Tensor:
        """The object of one class (B,) an image as float (B, H, W) in [0, 1]; an image's only mask is that of every class.

        Raises:
            SightlineError: the batch has no masks.
        """
        return self._as_float(class_masks(self._need_masks(), classes))

    def _need_masks(self) -> Tensor:
        if self.masks is None:
            raise SightlineError("this needs masks, and the batch has none")
        return self.masks

    def _as_float(self, masks: Tensor) -> Tensor:
        return masks if masks.is_floating_point() else (masks == 1).to(self.images.dtype)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: change(t) for name, t in tensors.items() if t is not None}
        new = object.__new__(type(self))  # the checks have run; on a GPU they would wait for the device
        new.__dict__.update({**tensors, **moved})
        return new

    def _check_masks(self, masks: Tensor) -> None:
        height, width = self.images.shape[-2:]
        if masks.ndim not in (3, 4) or masks.shape[0] != len(self) or masks.shape[-2:] != (height, width):
            raise SightlineError(
                f"masks have shape {tuple(masks.shape)}; expected ({len(self)}, {height}, {width}) or "
                f"({len(self)}, K, {height}, {width}), as the images"
            )
        if masks.dtype == torch.uint8:
            strange = masks[(masks > 1) & (masks != 255)]
            if strange.numel():
                raise SightlineError(f"masks hold the value {int(strange[0])}; uint8 masks are 0, 1 or 255 (ignore)")
        elif masks.is_floating_point():
            low, high = torch.aminmax(masks)
            if not (low >= 0 and high <= 1):
                raise SightlineError(f"masks range over [{low:.3g}, {high:.3g}]; float masks lie in [0, 1]")
        else:
            raise SightlineError(f"masks have dtype {masks.dtype}; expected uint8 (0, 1, 255) or float in [0, 1]")


def class_masks(masks: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return the mask (B, H, W) of one class per image; an image's only mask belongs to every class.

    Args:
        masks: (B, H, W) or (B, K, H, W), any type.
        classes: (B,) int64; None where images have one mask each.

    Raises:
        SightlineError: the masks have another shape, or there are several per image and no classes.
    """
    if masks.ndim == 3:
        return masks
    if masks.ndim != 4:
        raise SightlineError(f"masks have shape {tuple(masks.shape)}; expected (B, H, W) or (B, K, H, W)")
    if masks.shape[1] == 1:
        return masks[:, 0]
    if classes is None:
        raise SightlineError(f"masks have {masks.shape[1]} classes; expected targets (B,), the class of each map")
    return masks[torch.arange(len(masks), device=masks.device), classes.to(masks.device)]


def non_empty(regions: Tensor) -> Tensor:
    """Return which regions (B, ..., H, W) have a pixel above 0, as (B,) bool."""
    return (regions > 0).flatten(1).any(1)
