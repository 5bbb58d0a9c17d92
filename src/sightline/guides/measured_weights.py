"""Weights of the training images that a pass over the data finds."""

from collections.abc import Iterable, Sized

import torch
from torch import Tensor

from sightline._core.checks import check_count, check_fraction
from sightline._core.distributed import is_first_process, raising_everywhere, sum_over_processes
from sightline._core.progress import bar
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.sample_weights import Normalize, Reweighter, spread
from sightline.network.modes import evaluating
from sightline.objectives.base import GuidedModel


class MeasuredWeights(Reweighter):
    """Weights that a pass over the training data finds, and that stay until the next one; they start at 1.

    The model is in eval mode during the pass, its images are not augmented where the loader is the one that `sightline train`
    gives, and each process measures its share.

    Args:
        interval: k: the pass comes before the epochs k, 2 k, ..., counted from 0.
        min_weight: the smallest weight.
    """

    def __init__(self, interval: int, min_weight: float, normalize: Normalize) -> None:
        super().__init__(normalize)
        check_count(interval=interval)
        check_fraction(min_weight=min_weight)
        self.interval, self.min_weight = interval, min_weight

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """Return the weights (B,) of a batch by the model in eval mode; subclasses define this."""
        raise NotImplementedError

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """Return the stored weights (B,); 1 outside training."""
        return self.weights[self._rows(batch)] if self.training else None

    def weight_total(self, batch: Batch) -> Tensor | None:
        """Return the sum of the stored weights, or the number of images."""
        if self.normalize == "batch" or not self.training:
            return torch.tensor(float(len(batch)))
        return self.weights[self._rows(batch)].sum()

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Every k epochs, measure the weights of all images that the loaders of the processes give.

        Raises:
            SightlineError: on every process, if a weight cannot be measured, as where the model gives NaN.
        """
        super().on_epoch_start(objective, loader, epoch)
        if self.due(epoch):
            self._measure_all(objective, loader)
            self._spread = spread(self.weights, self.min_weight)

    def due(self, epoch: int) -> bool:
        """Whether a pass comes before this epoch."""
        return epoch > 0 and epoch % self.interval == 0

    def _measure_all(self, objective: GuidedModel, loader: Iterable[Batch]) -> None:
        steps = len(loader) if isinstance(loader, Sized) else None
        device = self.weights.device
        told = "another process could not measure the weights of its images; its message says why"
        with (
            raising_everywhere(device, told),
            evaluating(objective.model),
            bar(is_first_process(), "reweighting", steps) as advance,
        ):
            for batch in loader:
                here = batch.to(device, non_blocking=True)
                weights = self.measure(objective, here).clamp_min(self.min_weight)
                if not (finite := weights.isfinite()).all():
                    bad = here.indices[~finite].tolist() if here.indices is not None else "unknown"
                    raise SightlineError(f"the weights of images {bad} are NaN or infinite; is the model finite there?")
                self._remember(here, weights)
                advance(1)
        self.synchronize()


class StageWeights(MeasuredWeights):
    """Weights that a pass finds once, before a stage, by the model that the stage before has trained; their mean is 1."""

    def __init__(self) -> None:
        super().__init__(1, 0.0, "batch")

    def due(self, epoch: int) -> bool:
        """Never: the pass comes before the stage."""
        return False

    def scaled(self, weights: Tensor, labels: Tensor) -> Tensor:
        """Return the weights (N,) of the images with these labels (N,) as the loss takes them."""
        return weights / weights.mean()

    def on_stage_start(self, objective: GuidedModel, loader: Iterable[Batch]) -> None:
        """Measure the weights of all images that the loaders of the processes give."""
        super().on_epoch_start(objective, loader, 0)
        self._labels = torch.zeros(len(self.weights), dtype=torch.int64, device=self.weights.device)
        self._measure_all(objective, loader)
        labels = sum_over_processes(self._labels)
        self._stored.values = self.scaled(self.weights.double(), labels).to(self.weights)

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Reject a stage before which nothing was measured.

        Raises:
            SightlineError: `on_stage_start` was not called.
        """
        if not len(self.weights):
            raise SightlineError(
                f"{type(self).__name__} weighs images by the model that an earlier stage has trained; call "
                "objective.on_stage_start(loader) before the first epoch"
            )
        super().on_epoch_start(objective, loader, epoch)

    def _remember(self, batch: Batch, weights: Tensor) -> None:
        super()._remember(batch, weights)
        self._labels[self._rows(batch)] = batch.labels
