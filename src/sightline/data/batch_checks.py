"""Checks of what a batch holds: shapes, types and values. A batch runs them once, where it is made."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sightline._core.tensors import check_shape
from sightline.errors import SightlineError


def check_tensors(fields: Mapping[str, object]) -> None:
    """Raise unless each field that is given is a tensor."""
    for name, value in fields.items():
        if value is not None and not isinstance(value, Tensor):
            raise SightlineError(f"{name} is a {type(value).__name__}; expected a tensor")


def check_labels(labels: Tensor, size: int) -> None:
    """Raise unless labels are class indices (B,) of at least 0, or (B, K) of 0 and 1 with K >= 2."""
    one_column = labels.ndim == 2 and labels.shape[1] == 1
    if labels.ndim not in (1, 2) or one_column or labels.shape[0] != size or labels.dtype != torch.int64:
        raise SightlineError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; expected ({size},) int64, 0 or 1 of two "
            f"classes, or ({size}, K) with K >= 2 where images can have several"
        )
    low, high = (int(value) for value in torch.aminmax(labels))
    if labels.ndim == 2 and (low < 0 or high > 1):
        raise SightlineError(
            f"labels range over [{low}, {high}]; where images can have several, expected 1 for every class that an image "
            "shows, else 0"
        )
    if low < 0:
        raise SightlineError(f"labels hold {low}; expected class indices >= 0 (leave out images that have no label)")


def check_masks(masks: Tensor, size: tuple[int, int, int]) -> None:
    """Raise unless masks (B, H, W) or (B, K, H, W) are uint8 of 0, 1 and 255, or float in [0, 1].

    Args:
        masks: what to check.
        size: (B, H, W) of the images or maps.
    """
    check_shape(masks, "masks", size, (size[0], "K", *size[1:]), meaning="as the images")
    _check_values(masks, "masks")


def check_avoid(avoid: Tensor, size: tuple[int, int, int]) -> None:
    """Raise unless regions to avoid (B, H, W) are uint8 of 0, 1 and 255, or float in [0, 1]."""
    check_shape(avoid, "avoid", size, meaning="one region an image")
    _check_values(avoid, "avoid")


def _check_values(masks: Tensor, argument: str) -> None:
    if masks.dtype == torch.uint8:
        strange = (masks > 1) & (masks != 255)
        if strange.any():
            raise SightlineError(
                f"{argument} hold the value {int(masks[strange][0])}; uint8 masks are 0, 1 or 255 (ignore)"
            )
    elif masks.is_floating_point():
        low, high = torch.aminmax(masks)
        if not (low >= 0 and high <= 1):
            raise SightlineError(f"{argument} range over [{low:.3g}, {high:.3g}]; expected float masks in [0, 1]")
    else:
        raise SightlineError(f"{argument} have dtype {masks.dtype}; expected uint8 (0, 1, 255) or float in [0, 1]")


def check_masks_of_classes(masks: Tensor, labels: Tensor) -> None:
    """Raise if masks (B, K, H, W) of each class lack one of the classes of the labels (B,) or (B, K)."""
    if masks.ndim == 3 or masks.shape[1] == 1:
        return
    needed = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    if masks.shape[1] < needed or (labels.ndim == 2 and masks.shape[1] != needed):
        raise SightlineError(
            f"masks have {masks.shape[1]} classes and the labels {needed}; expected a mask of each class"
        )


def check_parts(parts: Tensor, size: tuple[int, int, int]) -> None:
    """Raise unless masks of parts (B, P, H, W) hold only 0 and 1."""
    check_shape(parts, "parts", (size[0], "P", *size[1:]), meaning="as the images")
    if not ((parts == 0) | (parts == 1)).all():
        raise SightlineError("parts hold other values than 0 and 1; expected 1 where a part is, else 0")


def check_targets(targets: Tensor, labels: Tensor) -> None:
    """Raise unless targets are (B, K) float in [0, 1], and sum to 1 where images have one label each."""
    if targets.ndim != 2 or not targets.is_floating_point() or len(targets) != len(labels):
        raise SightlineError(
            f"targets are {targets.dtype} {tuple(targets.shape)}; expected a float tensor ({len(labels)}, K), one row per image"
        )
    low, high = torch.aminmax(targets)
    if not (low >= 0 and high <= 1):
        raise SightlineError(f"targets range over [{low:.3g}, {high:.3g}]; expected shares in [0, 1]")
    if labels.ndim == 1 and (targets.sum(1) - 1).abs().max() > 1e-3:
        raise SightlineError(
            f"targets sum to {targets.sum(1).tolist()[:5]}; expected 1, where images have one label each"
        )


def check_indices(indices: Tensor, argument: str, size: int, least: int | None) -> None:
    """Raise unless indices are int64 (B,), none below `least`; None = any."""
    check_shape(indices, argument, (size,), dtype=torch.int64)
    if least is not None and int(indices.min()) < least:
        raise SightlineError(f"{argument} hold {int(indices.min())}; expected values >= {least}")


def check_boxes(boxes: Tensor, has_box: Tensor | None, size: tuple[int, int | None, int | None]) -> None:
    """Raise unless boxes (B, N, 4) are xyxy in pixels, from left to right and from top to bottom, around or near an image.

    Args:
        boxes: what to check.
        has_box: (B, N) bool, which of them are real; None = all.
        size: (B, H, W) of the images; H and W are None where they are not known.
    """
    count, height, width = size
    if boxes.ndim != 3 or boxes.shape[0] != count or boxes.shape[2] != 4 or boxes.dtype == torch.bool:
        raise SightlineError(
            f"boxes have shape {tuple(boxes.shape)} and dtype {boxes.dtype}; expected ({count}, N, 4), xyxy in pixels"
        )
    if has_box is not None:
        check_shape(has_box, "has_box", (count, boxes.shape[1]), dtype=torch.bool)
    real = boxes if has_box is None else boxes[has_box]
    real = real.reshape(-1, 4)
    x1, y1, x2, y2 = real.unbind(1)
    if height is None or width is None:
        good, of = (x1 <= x2) & (y1 <= y2) & real.isfinite().all(1), ""
    else:
        # A box may extend beyond its image, or be outside it after a crop. Ten sides away, it is of something else.
        near = (x1 >= -10 * width) & (x2 <= 11 * width) & (y1 >= -10 * height) & (y2 <= 11 * height)
        good, of = (x1 <= x2) & (y1 <= y2) & near, f" of images of {width} x {height} (width x height)"
    if not good.all():
        box = [round(value, 3) for value in real[~good][0].tolist()]
        raise SightlineError(f"boxes hold {box}; expected x1 <= x2 and y1 <= y2 in pixels{of}")
