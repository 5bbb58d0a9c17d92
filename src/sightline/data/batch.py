"""The batch that every loader yields and every objective takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
from torch import Tensor

from sightline._core.tensors import check_images, check_maps, check_shape
from sightline.data.batch_checks import (
    check_avoid,
    check_boxes,
    check_indices,
    check_labels,
    check_masks,
    check_masks_of_classes,
    check_parts,
    check_targets,
    check_tensors,
)
from sightline.errors import SightlineError


class _Checked:
    """What a batch remembers of its checks: its labels, the last class of them, and the ranges of indices and groups."""

    __slots__ = ("_last_class", "_ranges")
    _last_class: tuple[Tensor, int]
    _ranges: dict[str, tuple[Tensor, int, int]]  # "indices" and "groups", where there are any


@dataclass
class Batch(_Checked):
    """Images with their labels, and what else is known of each of them.

    Only `images` and `labels` are required. Every optional annotation has a flag that says which images have
    it, because a missing mask and an empty one differ: the first says nothing, the second says that there is no object.
    So do regions to avoid: an empty one says that the image shows nothing to avoid.

    Args:
        images: (B, C, H, W) float, in [0, 1] where an `InputSpec` normalises later.
        labels: (B,) int64 class indices; or (B, K) int64 with 1 for every class that an image shows, else 0.
        masks: (B, H, W), or (B, K, H, W) with K = 1 or the number of classes: uint8 with 0 = background,
            1 = object, 255 = ignore; or float in [0, 1].
        has_mask: (B,) bool; default: every image, where `masks` is given.
        boxes: (B, N, 4) float, xyxy in pixels, padded to N boxes per image.
        has_box: (B, N) bool, which boxes are real; default: all, where `boxes` is given.
        indices: (B,) int64, the index of each image in its dataset.
        groups: (B,) int64, such as the pair (class, background) of a shortcut benchmark.
        maps: (B, H, W) float, stored explanations of the images, moved with them; every image has one.
        parts: (B, P, H, W) uint8 with 1 = one part of the image's objects, padded by empty masks to P parts per image.
        avoid: (B, H, W) region that must not matter to the answer, such as a watermark, regardless of the class: uint8 with 0 =
            free, 1 = to avoid, 255 = ignore; or float in [0, 1].
        has_avoid: (B,) bool, which images have such a region; default: every image, where `avoid` is given.
        targets: (B, K) float in [0, 1], how much of each class an image shows, where images are mixed: the task loss takes them
            instead of the labels.

    Raises:
        SightlineError: a shape, dtype or range is not as above, or a size differs from that of the images.

    Examples:
        >>> masks = torch.ones(2, 64, 64, dtype=torch.uint8)
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> len(batch), batch.has_mask.tolist()
        (2, [True, True])
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
    avoid: Tensor | None = None
    has_avoid: Tensor | None = None
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        check_images(self.images)
        check_tensors(vars(self))
        size, _, height, width = self.images.shape
        area = (size, height, width)
        check_labels(self.labels, size)
        for flags, what in (("has_mask", "masks"), ("has_box", "boxes"), ("has_avoid", "avoid")):
            if getattr(self, flags) is not None and getattr(self, what) is None:
                raise SightlineError(f"{flags} was given without {what}; give both, or neither")
        if self.masks is not None:
            check_masks(self.masks, area)
            check_masks_of_classes(self.masks, self.labels)
            if self.has_mask is None:
                self.has_mask = torch.ones(size, dtype=torch.bool, device=self.masks.device)
            check_shape(self.has_mask, "has_mask", (size,), dtype=torch.bool)
        if self.boxes is not None:
            check_boxes(self.boxes, self.has_box, area)
            if self.has_box is None:
                self.has_box = torch.ones(self.boxes.shape[:2], dtype=torch.bool, device=self.boxes.device)
        if self.maps is not None:
            check_maps(self.maps, torch.Size(area))
        if self.parts is not None:
            check_parts(self.parts, area)
        if self.avoid is not None:
            check_avoid(self.avoid, area)
            if self.has_avoid is None:
                self.has_avoid = torch.ones(size, dtype=torch.bool, device=self.avoid.device)
            check_shape(self.has_avoid, "has_avoid", (size,), dtype=torch.bool)
        if self.targets is not None:
            check_targets(self.targets, self.labels)
        if self.indices is not None:
            check_indices(self.indices, "indices", size, 0)
        if self.groups is not None:
            check_indices(self.groups, "groups", size, None)
        self._last_class = self.labels, self.labels.shape[1] - 1 if self.multi_label else int(self.labels.max())
        known = {"indices": self.indices, "groups": self.groups}
        self._ranges = {name: (t, int(t.min()), int(t.max())) for name, t in known.items() if t is not None}

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several labels."""
        return self.labels.ndim == 2

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory, as a DataLoader asks for it."""
        return self._map(Tensor.pin_memory)

    def changed(self, **tensors: Tensor) -> Self:
        """Return the batch with other tensors of the same kind; they are not checked, because on a GPU a check would wait."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__ | tensors)
        new._last_class, new._ranges = self._last_class, self._ranges
        return new

    def range_of(self, name: Literal["indices", "groups"]) -> tuple[int, int]:
        """Return the range of the indices or groups, as noted when the batch was made."""
        tensor = getattr(self, name)
        noted, low, high = self._ranges.get(name, (None, 0, 0))
        return (low, high) if noted is tensor else (int(tensor.min()), int(tensor.max()))

    def check_classes(self, classes: int) -> None:
        """Raise if a label is none of a model's classes; the labels were looked at when the batch was made.

        Args:
            classes: how many the model tells apart.
        """
        if self.masks is not None and self.masks.ndim == 4 and self.masks.shape[1] not in (1, classes):
            raise SightlineError(
                f"masks have {self.masks.shape[1]} classes and the model {classes}; expected one mask per image or per class"
            )
        labels, last = self._last_class
        if labels is not self.labels:  # set by hand since the batch was made
            return
        if self.multi_label and last != classes - 1:
            raise SightlineError(f"labels are of {last + 1} classes; the model has {classes}")
        if last >= classes:
            raise SightlineError(f"labels hold {last}; the model has classes 0 .. {classes - 1}")

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
        """Return the labelled object of each image as float (B, H, W) in [0, 1]; pixels marked 255 count as background.

        Where an image has several labels, it is the union of their objects.

        Raises:
            SightlineError: the batch has no masks.
        """
        masks = self._need_masks()
        if masks.ndim == 4 and masks.shape[1] > 1 and self.multi_label:
            return (self._as_float(masks) * self.labels[..., None, None]).amax(1)
        return self.masks_of(self.labels)

    def masks_of(self, classes: Tensor) -> Tensor:
        """Return the object of one class (B,) per image as float (B, H, W) in [0, 1]; a single mask stands for every class.

        Raises:
            SightlineError: the batch has no masks.
        """
        return self._as_float(class_masks(self._need_masks(), classes))

    def _need_masks(self) -> Tensor:
        if self.masks is None:
            raise SightlineError("this needs masks, and the batch has none; give masks= to `sl.Batch`")
        return self.masks

    def _as_float(self, masks: Tensor) -> Tensor:
        return masks if masks.is_floating_point() else (masks == 1).to(self.images.dtype)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        new = self.changed(**{name: change(t) for name, t in tensors.items() if t is not None})
        return self._noted_in(new)

    def _noted_in(self, new: Self) -> Self:
        """Return a batch of the same values with what this one remembers."""
        labels, last = self._last_class
        if labels is self.labels:
            new._last_class = new.labels, last
        new._ranges = {
            name: (getattr(new, name), low, high)
            for name, (tensor, low, high) in self._ranges.items()
            if tensor is getattr(self, name)
        }
        return new


def class_masks(masks: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return the mask (B, H, W) of one class per image; an image's only mask belongs to every class.

    Args:
        masks: (B, H, W) or (B, K, H, W), any type.
        classes: (B,) int64; None where images have one mask each.

    Raises:
        SightlineError: the masks have another shape, or there are several per image and no classes.
    """
    check_shape(masks, "masks", (len(masks), "H", "W"), (len(masks), "K", "H", "W"))
    if masks.ndim == 3:
        return masks
    if masks.shape[1] == 1:
        return masks[:, 0]
    if classes is None:
        raise SightlineError(f"masks have {masks.shape[1]} classes; expected targets (B,), the class of each map")
    return masks[torch.arange(len(masks), device=masks.device), classes.to(masks.device)]


def non_empty(regions: Tensor) -> Tensor:
    """Return which regions (B, ..., H, W) have a pixel above 0, as (B,) bool."""
    return (regions > 0).flatten(1).any(1)
