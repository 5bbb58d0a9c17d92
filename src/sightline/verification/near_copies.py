"""Nearly identical images, found by a perceptual hash (pHash) and confirmed by a small copy of each image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sightline._core.optional import requires_extra

# Bits of 64 that may differ. Another size or quality changes 4 or fewer; different images of one kind differ in 10 or more.
_MOST_BITS = 6
_LEAST_CORRELATION = 0.95  # of the small gray copies
_FLAT = 2.0  # gray values; copies of less spread have no pattern to correlate
_MOST_DIFFERENCE = 4.0  # of the colors of flat images, on average
_SIDE = 16  # of a small copy
_ROWS = 512  # compared at once


@dataclass(frozen=True)
class Sketch:
    """What is kept of an image to compare it with others.

    Attributes:
        bits: (64,) float, 1 or -1, the perceptual hash.
        small: (3, 16, 16) uint8, the image scaled down.
    """

    bits: Tensor
    small: Tensor


def sketch_image(image: Tensor) -> Sketch:
    """Return the sketch of an image (3, H, W) uint8.

    Raises:
        MissingDependencyError: imagehash is not installed.
    """
    with requires_extra("check", "the search for nearly identical images"):
        import imagehash
    hashed = imagehash.phash(Image.fromarray(image.permute(1, 2, 0).numpy()))
    small = F.adaptive_avg_pool2d(image.float(), _SIDE).round().to(torch.uint8)
    return Sketch(torch.from_numpy(hashed.hash.flatten()).float() * 2 - 1, small)


def find_near_copies(first: Sequence[Sketch], second: Sequence[Sketch]) -> Iterator[tuple[int, int]]:
    """Yield a pair of places for each image of the second sequence that is nearly identical to one of the first."""
    if not first or not second:
        return
    known = torch.stack([sketch.bits for sketch in first])
    small = torch.stack([sketch.small for sketch in first])
    for start in range(0, len(second), _ROWS):
        some = second[start : start + _ROWS]
        different = (known.shape[1] - torch.stack([sketch.bits for sketch in some]) @ known.T) / 2
        for row in (different <= _MOST_BITS).any(1).nonzero()[:, 0].tolist():
            candidates = (different[row] <= _MOST_BITS).nonzero()[:, 0]
            candidates = candidates[different[row, candidates].argsort(stable=True)]
            near = _alike(small[candidates], some[row].small)
            if near.any():
                yield int(candidates[near][0]), start + row


def _alike(several: Tensor, one: Tensor) -> Tensor:
    """Which small copies (N, 3, S, S) show what another one shows: the same pattern, or the same color without one."""
    weights = torch.tensor([0.299, 0.587, 0.114])  # of luminance, which gray copies of color images keep
    gray, other = (torch.einsum("c,...chw->...hw", weights, each.float()).flatten(-2) for each in (several, one))
    flat, other_flat = gray.std(1) < _FLAT, bool(other.std() < _FLAT)
    if other_flat:
        return flat & ((several.float() - one.float()).abs().mean((1, 2, 3)) <= _MOST_DIFFERENCE)
    return ~flat & (torch.corrcoef(torch.cat([other[None], gray]))[0, 1:] >= _LEAST_CORRELATION)
