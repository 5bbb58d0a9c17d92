"""Weights of the training images: what every guide that reweights them shares."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sightline._core.checks import check_choice
from sightline._core.distributed import sum_over_processes, world_size
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.objectives.base import Context, Guide, GuidedModel

Normalize = Literal["weights", "batch"]


class Stored(nn.Module):
    """A tensor that is saved and moves with its module, but is not a buffer: DDP gives every process the first one's buffers.

    Attributes:
        values: the tensor, empty until it is set; it keeps its type when the module is cast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values = torch.empty(0)

    def get_extra_state(self) -> Tensor:
        """Return the state that `state_dict` saves."""
        return self.values

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `state_dict` saved, of any size."""
        self.values = state.detach().to(self.values.device, copy=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Stored":
        self.values = self.values.to(fn(self.values).device)
        return super()._apply(fn, recurse)


class Reweighter(Guide):
    """A guide that weights the task loss of each image, and remembers the weights by the images' places in the dataset.

    Args:
        normalize: what the weighted loss is divided by: the sum of the `"weights"`, or the number of images in the `"batch"`.
    """

    min_weight = 0.0

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        check_choice(Normalize, normalize=normalize)
        self.normalize = normalize
        self._stored = Stored()
        self._fresh = torch.zeros(0, dtype=torch.bool)  # set on this process since all agreed
        self._spread: dict[str, Tensor] = {}

    @property
    def weights(self) -> Tensor:
        """The weight (N,) that each image of the dataset got last; 1 where it has none yet, empty before `on_epoch_start`."""
        return self._stored.values

    def weight_total(self, batch: Batch) -> Tensor | None:
        """Return the number of images, where the loss is divided by it."""
        return torch.tensor(float(len(batch))) if self.normalize == "batch" else None

    def losses(self, context: Context) -> dict[str, Tensor]:
        """No terms; logs the spread of the weights as the epoch began, which shows whether they saturate."""
        context.figures |= self._spread
        return {}

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Allocate the dataset's weights, and agree with the other processes on them.

        Raises:
            SightlineError: weights were kept of a dataset of another size.
        """
        device = next(objective.model.parameters()).device
        if not len(self.weights):
            self._stored.values = torch.ones(_images(loader, device), device=device)
        elif isinstance(count := _sized(loader), int) and count != len(self.weights):
            raise SightlineError(
                f"the dataset has {count} images; the weights that were kept are of {len(self.weights)}"
            )
        self._stored.to(device)
        self.synchronize()
        self._spread = spread(self.weights, self.min_weight)

    def synchronize(self) -> None:
        """Give every process the weights that each set; an image that several of them saw gets their mean."""
        values, fresh = self.weights, self._fresh
        self._fresh = torch.zeros_like(values, dtype=torch.bool)
        if world_size() == 1 or not len(values):
            return
        # float64 holds the sum of two float32 and, alone, each of them exactly.
        seen = fresh.to(values.device) if len(fresh) else self._fresh
        sums = sum_over_processes(torch.stack([values.double() * seen, seen.double()]))
        self._stored.values = torch.where(sums[1] > 0, sums[0] / sums[1].clamp_min(1), values.double()).to(values)

    def _remember(self, batch: Batch, weights: Tensor) -> None:
        """Keep weights (B,) of a batch."""
        rows = self._rows(batch)
        self.weights[rows] = weights.detach().to(self.weights)
        self._fresh[rows] = True

    def _noted(self, batch: Batch, weights: Tensor) -> Tensor:
        """Store the weights for a later ranking of the images, and return them."""
        if self.training and len(self.weights):
            self._remember(batch, weights)
        return weights

    def _rows(self, batch: Batch) -> Tensor:
        """Return the positions (B,) of a batch's images among the weights."""
        if batch.indices is None:
            raise SightlineError(
                "weights are kept by batch.indices, which this batch does not have; give `indices=` to `sl.Batch`"
            )
        low, high = batch.range_of("indices")
        if low < 0 or high >= len(self.weights):
            raise SightlineError(
                f"batch.indices range over [{low}, {high}]; there are weights of {len(self.weights)} images "
                "(call on_epoch_start with the training data before every epoch)"
            )
        return batch.indices.to(self.weights.device)


def spread(weights: Tensor, min_weight: float = 0.0) -> dict[str, Tensor]:
    """Least, median and greatest of weights (N,), and the share of them that is at the floor: what shows saturation."""
    return {
        "weights/min": weights.amin(),
        "weights/median": weights.median(),
        "weights/max": weights.amax(),
        "weights/at_min": (weights <= min_weight).to(weights.dtype).mean(),
    }


def _sized(loader: Iterable[Batch]) -> int | None:
    """How many images the loader's dataset has, if known."""
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else None  # type: ignore[arg-type]


def _images(loader: Iterable[Batch], device: torch.device) -> int:
    """How many images the dataset has: as the loader says, or by the indices in its batches over all processes."""
    if (count := _sized(loader)) is not None:
        return count
    highest = torch.tensor(
        max((int(b.indices.max()) for b in loader if b.indices is not None), default=-1), device=device
    )
    if world_size() > 1:
        dist.all_reduce(highest, dist.ReduceOp.MAX)
    if highest < 0:
        raise SightlineError(
            "weights are kept by batch.indices, which no batch of the loader has; give `indices=` to `sl.Batch`"
        )
    return int(highest) + 1
