"""Random pixels that depend on the image they are for, not on its batch, its process or the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from sightline._core.seeding import generator, image_keys


def drawn(
    draw: Callable[..., Tensor], images: Tensor, indices: Tensor | None, seed: int, *purpose: int | str
) -> Tensor:
    """`torch.rand` or `torch.randn` of the shape of images (B, C, H, W), each keyed by (seed, index, purpose).

    Args:
        draw: the torch function.
        images: whose shape, device and dtype the draws have.
        indices: (B,) each image's place in its dataset; None = the image's pixels are its key.
        seed: of all draws.
        purpose: what they are for.
    """
    keys = image_keys(images, indices)
    rows = [draw(images.shape[1:], generator=generator(seed, key, *purpose)) for key in keys]
    return torch.stack(rows).to(images)
