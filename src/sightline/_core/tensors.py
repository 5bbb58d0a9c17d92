"""Tensors that callers pass: checks whose errors name the argument, and the type to compute in."""

import torch
from torch import Tensor

from sightline.errors import SightlineError


def check_images(images: Tensor, argument: str = "images") -> None:
    """Refuse anything but a finite float batch (B, C, H, W) with at least one image."""
    if not isinstance(images, Tensor):
        raise SightlineError(f"{argument} is a {type(images).__name__}; expected a float tensor (B, C, H, W)")
    if images.ndim != 4 or 0 in images.shape:
        raise SightlineError(f"{argument} has shape {tuple(images.shape)}; expected (B, C, H, W), none of them 0")
    if not images.is_floating_point():
        raise SightlineError(
            f"{argument} has dtype {images.dtype}; expected a float type (uint8 pixels: divide by 255)"
        )
    if not torch.isfinite(images.detach()).all():
        bad = (~torch.isfinite(images.detach())).flatten(1).any(1).nonzero().flatten().tolist()
        raise SightlineError(f"{argument} holds NaN or infinity (images {bad[:10]} of the batch)")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in its own type where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
