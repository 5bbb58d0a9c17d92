"""Gaussian blur, and the sizes of its kernels as users give them."""

import torch
from torch import Tensor

from sightline.errors import SightlineError


def odd_kernel(blur: int | float | None, side: int, default: float = 23 / 224) -> int:
    """Return the size in pixels of a blur's kernel for an image of a given side.

    Args:
        blur: None = `default` of the side; int = pixels; float = fraction of the side; 0 = no blur.
        side: the image's shorter side in pixels.
        default: the fraction that None stands for.

    Returns:
        0, or an odd size, cut to the largest odd number below the side (reflect padding allows no more).
    """
    if isinstance(blur, bool) or not isinstance(blur, int | float | None) or (blur is not None and not blur >= 0):
        raise SightlineError(
            f"blur is {blur!r}; expected None, pixels (int >= 0) or a fraction of the side (float >= 0)"
        )
    if isinstance(blur, float) and blur > 1:
        raise SightlineError(f"blur is {blur}; a float is a fraction of the side, at most 1 (pixels are an int)")
    pixels = (default if blur is None else blur) * side if blur is None or isinstance(blur, float) else blur
    if pixels == 0:
        return 0
    # An even size rounds up, as 22.4 of 224 pixels is the paper's 23.
    odd = 2 * int(pixels // 2) + 1
    return min(odd, 2 * ((side - 2) // 2) + 1)


def gaussian_blur(images: Tensor, kernel: int, sigma: float | None = None) -> Tensor:
    """Apply a Gaussian blur with reflected borders: torchvision's, at a fraction of the cost of its square kernel.

    The blur is a linear map of the rows and one of the columns, and each is a small matrix, the borders included. So it costs
    height + width multiplications a pixel instead of kernel^2, and runs as matrix products.

    Args:
        images: (..., H, W) float.
        kernel: an odd number of pixels, below twice the shorter side.
        sigma: in pixels; None = 0.3 ((kernel - 1) / 2 - 1) + 0.8, as OpenCV and torchvision choose it.
    """
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8 if sigma is None else sigma
    rows, columns = (_blur_matrix(side, kernel, sigma, images) for side in images.shape[-2:])
    blurred = rows @ images @ columns.T
    channels_last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    return blurred.contiguous(memory_format=torch.channels_last) if channels_last else blurred


def _blur_matrix(side: int, kernel: int, sigma: float, like: Tensor) -> Tensor:
    """(side, side): how much of each pixel of a line goes into each pixel of the blurred line."""
    offsets = torch.arange(kernel, device=like.device) - kernel // 2
    exact = torch.promote_types(like.dtype, torch.float32)
    weights = torch.exp(-0.5 * (offsets.to(exact) / sigma) ** 2)
    weights = (weights / weights.sum()).to(like.dtype)
    sources = (torch.arange(side, device=like.device)[:, None] + offsets).abs()
    sources = torch.where(sources > side - 1, 2 * (side - 1) - sources, sources)  # reflected
    matrix = torch.zeros(side, side, dtype=like.dtype, device=like.device)
    return matrix.scatter_add_(1, sources, weights.expand(side, kernel))
