"""Batches that hold features instead of pixels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from sightline.data.batch import Batch


@dataclass
class FeatureBatch(Batch):
    """A batch without pixels: its images are NaN, in the shape of the images and without their memory.

    Args:
        features: what crosses the cut of a trunk (`sightline.finetuning.trunk`), each with a row for each image.
    """

    features: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, batch: Batch, features: Iterable[Tensor]) -> Self:
        """Return what is known of a batch, with features instead of its pixels."""
        new = object.__new__(cls)
        new.__dict__.update(batch.__dict__ | {"features": tuple(features)})
        new.images = _no_pixels(batch.images, batch.images.shape)
        new._last_class, new._ranges = batch._last_class, batch._ranges
        return new

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, without the pixels."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("images", "features")}
        rows = {f"features/{number}": each for number, each in enumerate(self.features)}
        return {name: each for name, each in known.items() if each is not None} | rows

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """Return the batch with other rows, given as `tensors` names them; they are not checked."""
        named = {name: each for name, each in tensors.items() if not name.startswith("features/")}
        new = self.changed(**named)
        new.features = tuple(tensors[f"features/{number}"] for number in range(len(self.features)))
        new.images = _no_pixels(self.images, (len(new.labels), *self.images.shape[1:]))
        return new

    def rows(self, places: Tensor) -> Self:
        """Return the rows at places (N,), in their order, as a copy."""
        return self.with_tensors({name: _rows(each, places) for name, each in self.tensors.items()})

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        new = self.with_tensors({name: change(each) for name, each in self.tensors.items()})
        new.images = _no_pixels(change(self.images[:1, :1, :1, :1]), self.images.shape)
        return self._noted_in(new)


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Return the dimensions of a tensor in the order in which they are in memory, such as (0, 2, 3, 1) for channels last."""
    return tuple(sorted(range(tensor.ndim), key=lambda dimension: (-tensor.stride()[dimension], dimension)))


def in_order(tensor: Tensor, order: Sequence[int]) -> Tensor:
    """Return the tensor whose dimensions, taken in an order, are those of a given one: what undoes `permute(order)`."""
    return tensor.permute([order.index(dimension) for dimension in range(len(order))])


def _rows(tensor: Tensor, places: Tensor) -> Tensor:
    """Return rows in the same memory order as those of the tensor, because sums depend on it in the last digits."""
    order = memory_order(tensor)
    if not order or order[0] != 0:
        return tensor.index_select(0, places)
    return in_order(tensor.permute(order).index_select(0, places), order)


def join(batches: Sequence[FeatureBatch]) -> FeatureBatch:
    """Return the rows of several batches as one; boxes and the like are padded to the most that an image has."""
    parts = [batch.tensors for batch in batches]
    joined = {name: torch.cat(_padded([part[name] for part in parts])) for name in parts[0]}
    return batches[0].with_tensors(joined)


def _padded(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors (B, N, ...) with zeros up to the largest N."""
    if tensors[0].ndim < 2 or len({each.shape[1] for each in tensors}) == 1:
        return tensors
    most = max(each.shape[1] for each in tensors)
    return [torch.cat([t, t.new_zeros(len(t), most - t.shape[1], *t.shape[2:])], 1) for t in tensors]


def _no_pixels(like: Tensor, shape: Sequence[int]) -> Tensor:
    return like.new_full((1, 1, 1, 1), torch.nan).expand(*shape)
