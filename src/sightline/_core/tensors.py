"""Tensors that callers pass: checks whose errors name the argument, and the type to compute in."""

import torch
from torch import Tensor

from sightline.errors import SightlineError

TOLERANCE = 1e-4  # of a range: what rounding and resampling may add
# How many machine epsilons of its magnitude a constant map varies by: 3e-5 of it in float32. Resizing and sums over channels
# leave some ten of them.
ROUNDING = 256


def check_images(images: Tensor, argument: str = "images") -> None:
    """Raise unless the images are a finite float batch (B, C, H, W) with at least one image."""
    if not isinstance(images, Tensor):
        raise SightlineError(f"{argument} is a {type(images).__name__}; expected a float tensor (B, C, H, W)")
    if images.ndim != 4 or 0 in images.shape:
        raise SightlineError(f"{argument} has shape {tuple(images.shape)}; expected (B, C, H, W), none of them 0")
    if not images.is_floating_point():
        raise SightlineError(
            f"{argument} has dtype {images.dtype}; expected a float type (uint8 pixels: divide by 255)"
        )
    check_finite(images, argument)


def check_pixels(images: Tensor, argument: str = "images", change: str = "pixels are changed") -> None:
    """Raise unless the images are a finite float batch (B, C, H, W) in [0, 1], where a change in pixel units is defined."""
    check_images(images, argument)
    check_unit_range(
        images,
        argument,
        f"because {change} here (pass the model's normalization as input_spec; it is applied afterwards)",
    )


def check_unit_range(values: Tensor, argument: str, reason: str = "") -> None:
    """Raise if a value is outside [0, 1], up to rounding. NaN passes: `check_finite` finds it.

    Args:
        values: any shape, at least one value.
        argument: the name in the error.
        reason: why the range is needed, as the end of the sentence.
    """
    low, high = torch.stack(torch.aminmax(values.detach())).tolist()  # one wait for the device
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise SightlineError(f"{argument} range over [{low:.3g}, {high:.3g}]; expected [0, 1] {reason}".rstrip())


def outside_unit_range(values: Tensor) -> Tensor:
    """Return whether (scalar, on the device) `check_unit_range` would raise; the host does not wait for the answer."""
    low, high = torch.aminmax(values.detach())
    return (low < -TOLERANCE) | (high > 1 + TOLERANCE)


def check_maps(maps: Tensor, size: torch.Size | None = None, low: float = -torch.inf, high: float = torch.inf) -> None:
    """Raise unless the maps are finite floats (B, H, W) of the size of the images and in a range.

    Args:
        maps: what to check.
        size: (B, H, W) that they must have; None = any.
        low: smallest accepted value.
        high: largest accepted value.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point() or maps.ndim != 3 or 0 in maps.shape:
        came = f"{maps.dtype} {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
        raise SightlineError(f"maps are {came}; expected a float tensor (B, H, W), none of them 0")
    if size is not None and maps.shape != size:
        raise SightlineError(f"maps have shape {tuple(maps.shape)}; expected {tuple(size)}, as the images")
    check_finite(maps, "maps")
    least, greatest = torch.aminmax(maps)
    if least < low or greatest > high:
        raise SightlineError(f"maps range over [{least:.3g}, {greatest:.3g}]; expected [{low}, {high}]")


def check_finite(values: Tensor, subject: str, advice: str = "") -> None:
    """Raise if values (B, ...) contain NaN or infinity, and name the images of the batch that do.

    Args:
        values: one row per image.
        subject: what the values are, such as an argument's name.
        advice: what to do or to ask, as the end of the sentence.
    """
    finite = values.detach().isfinite().reshape(len(values), -1).all(1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        end = f"; {advice}" if advice else ""
        raise SightlineError(f"NaN or infinity in {subject} (images {bad[:10]} of the batch){end}")


def has_contrast(maps: Tensor) -> Tensor:
    """Return which maps (..., h, w) vary by more than rounding, which grows with their magnitude: (...) bool; NaN varies."""
    wide = at_least_float32(maps)
    low, high = wide.amin((-2, -1)), wide.amax((-2, -1))
    return ~(high - low <= ROUNDING * torch.finfo(wide.dtype).eps * torch.maximum(low.abs(), high.abs()))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in its own type where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
