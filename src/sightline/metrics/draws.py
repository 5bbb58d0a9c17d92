"""Random pixels that depend on the image they are for, not on its batch, its process or the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from sightline._core.seeding import generator
from sightline.errors import SightlineError


def drawn(
    draw: Callable[..., Tensor], images: Tensor, indices: Tensor | None, seed: int, *purpose: int | str
) -> Tensor:
    """`torch.rand` or `torch.randn` of the shape of images (B, C, H, W), each keyed by (seed, index, purpose).

    Args:
        draw: the torch function.
        images: whose shape, device and dtype the draws have.
        indices: (B,) each image's place in its dataset; None = its place in the batch.
        seed: of all draws.
        purpose: what they are for.
    """
    places = range(len(images)) if indices is None else indices.tolist()
    if len(places) != len(images):
        raise SightlineError(f"indices has {len(places)} entries; expected one for each of the {len(images)} images")
    rows = [draw(images.shape[1:], generator=generator(seed, place, *purpose)) for place in places]
    return torch.stack(rows).to(images)
