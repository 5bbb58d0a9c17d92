"""What stands where an image is taken away."""

from typing import Literal

import torch
from torch import Tensor

from sightline._core.checks import check_number
from sightline._core.kernels import gaussian_blur
from sightline.errors import SightlineError

Fill = Literal["blur", "mean"] | float


def filled(images: Tensor, fill: Fill) -> Tensor:
    """Images (B, C, H, W) with nothing left of them.

    Args:
        images: float.
        fill: "blur" = a Gaussian of kernel 11 and sigma 5 at 224 pixels (RISE's), scaled with the shorter side, borders
            reflected; "mean" = each image's own mean color; or a constant.

    Raises:
        SightlineError: another fill.
    """
    if fill == "blur":
        side = min(images.shape[-2:])
        kernel = max(3, 2 * round((11 * side / 224 - 1) / 2) + 1)  # the nearest odd size
        return gaussian_blur(images, kernel, 5 * side / 224)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if isinstance(fill, int | float):
        check_number(fill=fill)
        return torch.full_like(images, fill)
    raise SightlineError(f"fill is {fill!r}; expected 'blur', 'mean' or a number")
