"""Randomness that depends on what is drawn, not on who draws it or when.

Everything random in training and data is keyed by (seed, epoch, sample index, purpose), so neither the number of
workers or processes nor a resumed run can change it.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sightline._core.exclusive import exclusive
from sightline.errors import SightlineError


def derive_seed(*key: int | str) -> int:
    """Return a 63-bit seed from a key such as `(seed, epoch, index, "augmentation")`; equal keys give equal seeds."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*key)`."""
    return torch.Generator().manual_seed(derive_seed(*key))


def image_keys(images: Tensor, indices: Tensor | None = None) -> list[int | str]:
    """Return what random draws for each image are keyed by: its index, or its pixels where that is not known.

    Both are the same however images are batched.

    Args:
        images: (B, C, H, W).
        indices: (B,) each image's place in its dataset; None = not known.
    """
    if indices is None:
        rows = images.detach().cpu().contiguous()
        return [hashlib.blake2b(row.view(torch.uint8).numpy().tobytes(), digest_size=8).hexdigest() for row in rows]
    if len(indices) != len(images):
        raise SightlineError(f"indices has {len(indices)} entries; expected one for each of the {len(images)} images")
    return indices.tolist()


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


@contextmanager
def seeded(device: torch.device, *key: int | str) -> Iterator[None]:
    """Seed the global generators that a library draws from on a device, and restore their state afterwards.

    One thread at a time may enter, since the generators are the whole process's. What other threads draw meanwhile without
    entering comes from the same generators.
    """
    seed = derive_seed(*key)
    devices = [device] if device.type == "cuda" else []
    with exclusive([torch.default_generator]), torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(seed)
        yield
