"""Tensors that callers pass: checks whose errors name the argument, and the type to compute in."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sightline.errors import SightlineError

TOLERANCE = 1e-4  # of a range: what rounding and resampling may add
# How many machine epsilons of its magnitude a constant map varies by: 3e-5 of it in float32. Resizing and sums over channels
# leave some ten of them.
ROUNDING = 256


def check_shape(
    tensor: object, argument: str, *shapes: Sequence[int | str], dtype: torch.dtype | None = None, meaning: str = ""
) -> None:
    """Raise unless the argument is a tensor of one of the shapes.

    Args:
        tensor: what came.
        argument: the name in the error.
        *shapes: what is accepted, such as `(3, "N", 4)`: a letter stands for any length of at least 1.
        dtype: the only accepted one; None = any.
        meaning: what the shape is or has to follow, as the end of the sentence.
    """
    names = " or ".join(f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})" for shape in shapes)
    expected = names + (f" {dtype}".replace("torch.", "") if dtype else "") + (f", {meaning}" if meaning else "")
    if not isinstance(tensor, Tensor):
        raise SightlineError(f"{argument} is a {type(tensor).__name__}; expected a tensor {expected}")
    fits = any(
        tensor.ndim == len(shape)
        and all(n > 0 if isinstance(wanted, str) else n == wanted for n, wanted in zip(tensor.shape, shape))
        for shape in shapes
    )
    if not fits or dtype not in (None, tensor.dtype):
        came = f"{tuple(tensor.shape)}" + (f" and dtype {tensor.dtype}" if dtype else "")
        none = ", none of them 0" if 0 in tensor.shape else ""
        have = "have" if argument.endswith("s") else "has"
        raise SightlineError(f"{argument} {have} shape {came}; expected {expected}{none}")


def check_images(images: Tensor, argument: str = "images") -> None:
    """Raise unless the images are a finite float batch (B, C, H, W) with at least one image."""
    check_shape(images, argument, ("B", "C", "H", "W"))
    if not images.is_floating_point():
        raise SightlineError(
            f"{argument} have dtype {images.dtype}; expected a float type (uint8 pixels: divide by 255)"
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


def check_maps(
    maps: Tensor,
    size: torch.Size | None = None,
    low: float = -torch.inf,
    high: float = torch.inf,
    argument: str = "maps",
) -> None:
    """Raise unless the maps are finite floats (B, H, W) of the size of the images and in a range.

    Args:
        maps: what to check.
        size: (B, H, W) that they must have; None = any.
        low: smallest accepted value.
        high: largest accepted value.
        argument: the name in the error.
    """
    check_shape(maps, argument, size or ("B", "H", "W"), meaning="" if size is None else "as the images")
    if not maps.is_floating_point():
        raise SightlineError(f"{argument} have dtype {maps.dtype}; expected a float type")
    check_finite(maps, argument)
    least, greatest = torch.aminmax(maps)
    if least < low or greatest > high:
        raise SightlineError(f"{argument} range over [{least:.3g}, {greatest:.3g}]; expected [{low}, {high}]")


def check_finite(values: Tensor, subject: str, advice: str = "") -> None:
    """Raise if values (B, ...) contain NaN or infinity, and name the images of the batch that do.

    Args:
        values: one row per image.
        subject: what the values are, such as an argument's name.
        advice: what to do or to ask, as the end of the sentence.
    """
    finite = values.detach().isfinite()
    if not finite.all():
        bad = (~finite.reshape(len(values), -1).all(1)).nonzero().flatten().tolist()
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
