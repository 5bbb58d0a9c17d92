"""The partition of an image: halves of halves, down to single values."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Partition:
    """The tree of an image's parts, numbered level by level from the whole image, 0, to single values, the leaves.

    A part's *code* is the way to it: a bit per split, from the highest, which is 1 for the second half. The codes of two parts
    first differ where the parts were separated. A context is a number `on` of as many bits, which says at each split on the way
    to a part whether the other half is shown. The lowest bits belong to splits of channels.

    Attributes:
        halves: (N, 2) the two halves of each part; 0 for a leaf.
        parent: (N,) what each part is a half of.
        code: (N,) int64, its further bits 0.
        bit: (N,) the bit by which the halves' codes differ; 0 for a leaf.
        size: (N,) number of values.
        weight: (N,) of each of a part's items: one half to the power of its depth.
        corner: (N,) the first pixel.
        levels: the first and last (excluded) part of each level.
        leaves: (C * H * W,) the leaf that each value is.
        pixels: (H, W) codes down to pixels, of as few bytes as they need.
        channels: (C,) codes within a pixel.
        channel_bits: the number of bits that channels take.
        expansions: how many there are in all.
    """

    halves: Tensor
    parent: Tensor
    code: Tensor
    bit: Tensor
    size: Tensor
    weight: Tensor
    corner: Tensor
    levels: list[tuple[int, int]]
    leaves: Tensor
    pixels: Tensor
    channels: Tensor
    channel_bits: int
    expansions: int

    def shown(self, parts: Tensor, on: Tensor) -> Tensor:
        """Which values the contexts `on` (...) of `parts` (...) show: (..., C, H, W) bool."""
        code = self.code[parts]
        wide = tuple(self.pixels.shape)
        spatial = [(bits >> self.channel_bits).to(self.pixels.dtype)[..., None, None] for bits in (code, on)]
        shown = _separated_by(self.pixels ^ spatial[0], spatial[1])
        shown = shown[..., None, :, :].expand(*parts.shape, len(self.channels), *wide).flatten(-2).contiguous()
        # Parts of a pixel: the other channels of that pixel have each their own bit.
        corner = self.corner[parts]
        codes = (self.pixels.flatten()[corner].long() << self.channel_bits)[..., None] | self.channels
        bits = _separated_by(codes ^ code[..., None], on[..., None])
        where = corner[..., None, None].expand(*parts.shape, len(self.channels), 1)
        return shown.scatter_(-1, where, bits[..., None]).unflatten(-1, wide)

    def lowered(self, worths: Tensor) -> Tensor:
        """Return the value of each pixel (n, C * H * W, K), where parts pass their values (n, N, K) to their halves by size."""
        for start, stop in self.levels[1:]:
            parent = self.parent[start:stop]
            share = self.size[start:stop].to(worths.dtype) / self.size[parent]
            worths[:, start:stop] += worths[:, parent] * share[:, None]
        return worths[:, self.leaves]


def _separated_by(difference: Tensor, on: Tensor) -> Tensor:
    """Whether the highest bit of the difference is one of `on`."""
    return (difference & on) > (difference & ~on)


@lru_cache(maxsize=8)
def partition_of(channels: int, height: int, width: int, device: torch.device) -> Partition:
    """Return the partition of images (C, H, W)."""
    pixel_bits = (height - 1).bit_length() + (width - 1).bit_length()
    channel_bits = (channels - 1).bit_length()
    low, high = torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[height, width, channels]])
    code, parent = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    splits = torch.zeros(1, 2, dtype=torch.int64)  # of the pixels and of the channels, on the way to a part
    columns: dict[str, list[Tensor]] = {}
    levels: list[tuple[int, int]] = []
    leaves = torch.empty(channels, height, width, dtype=torch.int64)
    start = 0
    while len(low):
        levels.append((start, start + len(low)))
        extent = high - low
        tall, wide, _ = extent.unbind(1)
        axis = torch.where((tall >= wide) & (tall > 1), 0, torch.where(wide > 1, 1, 2))
        size = extent.prod(1)
        inner = size > 1
        within = (axis == 2).long()
        ends = torch.tensor([pixel_bits + channel_bits - 1, channel_bits - 1])
        bit = torch.where(inner, 1 << (ends[within] - splits.gather(1, within[:, None])[:, 0]).clamp(min=0), 0)
        first = levels[-1][1] + 2 * (inner.cumsum(0) - 1)
        part = {
            "halves": torch.stack([first, first + 1], 1) * inner[:, None],
            "parent": parent,
            "code": code,
            "bit": bit,
            "size": size,
            "weight": torch.full((len(low),), 0.5 ** (len(levels) - 1)),
            "corner": low[:, 0] * width + low[:, 1],
        }
        for name, column in part.items():
            columns.setdefault(name, []).append(column)
        row, column, channel = low[~inner].unbind(1)
        leaves[channel, row, column] = start + (~inner).nonzero()[:, 0]

        parent = (start + inner.nonzero()).expand(-1, 2).flatten()
        start = levels[-1][1]
        low, high, code, bit, axis, splits = (t[inner] for t in (low, high, code, bit, axis[:, None], splits))
        middle = high.gather(1, axis) - (high - low).gather(1, axis) // 2
        low = torch.stack([low, low.scatter(1, axis, middle)], 1).flatten(0, 1)
        high = torch.stack([high.scatter(1, axis, middle), high], 1).flatten(0, 1)
        code = torch.stack([code, code | bit], 1).flatten()
        splits = splits.scatter_add(1, (axis == 2).long(), torch.ones_like(axis)).repeat_interleave(2, 0)
    nodes = {name: torch.cat(column) for name, column in columns.items()}
    codes = nodes["code"][leaves]
    pixels = (codes[0] >> channel_bits).to(torch.int16 if pixel_bits < 16 else torch.int32)
    expansions = int((1 / nodes["weight"].double())[nodes["bit"] > 0].sum())  # of a part at depth d there are 2^d items
    tensors = {
        "leaves": leaves.flatten(),
        "pixels": pixels,
        "channels": codes[:, 0, 0] & ((1 << channel_bits) - 1),
        **nodes,
    }
    return Partition(
        levels=levels, channel_bits=channel_bits, expansions=expansions, **{n: t.to(device) for n, t in tensors.items()}
    )
