"""A stage trained from features: what stands instead of its objective and of its loaders."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sightline.data.dataset import Sample
from sightline.data.loader import EpochSampler
from sightline.finetuning.trunk import Trunk
from sightline.objectives.objective import Objective
from sightline.training.feature_batch import FeatureBatch
from sightline.training.feature_cache import FeatureStore


class TailObjective(nn.Module):
    """An objective that takes features: the frozen trunk does not run.

    Args:
        objective: its parameters are those of this module.
        trunk: where the features come from.
    """

    def __init__(self, objective: Objective, trunk: Trunk) -> None:
        super().__init__()
        self.objective = objective
        self._trunk = trunk

    def forward(self, batch: FeatureBatch, counts: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the result of `Objective.forward` for the images of these features."""
        with self._trunk.replaying(batch.features):
            return self.objective(batch, counts=counts, replayed=True)


class FeatureLoader:
    """Batches of features instead of a loader's batches of images; epoch e takes draw e mod K.

    The images of an epoch come in the order in which the loader would give them. Below K, epoch and draw are the same.

    Args:
        loader: of the images.
        store: of its draws; complete, where there are more epochs than draws.
        draws: K.
    """

    def __init__(self, loader: "DataLoader[Sample]", store: FeatureStore, draws: int) -> None:
        self._loader, self._store, self._draws = loader, store, draws

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[FeatureBatch]:
        epoch = cast(EpochSampler, self._loader.sampler).epoch
        rows = self._store.draw(epoch % self._draws)
        torch.empty((), dtype=torch.int64).random_()  # as a DataLoader does, so dropout draws the same numbers
        size = cast(int, self._loader.batch_size)
        for places in self._places(rows, epoch)[: len(self) * size].split(size):
            yield rows.rows(places)

    def _places(self, rows: FeatureBatch, epoch: int) -> Tensor:
        """Where the images of an epoch are among the rows, in their order."""
        order = [index for _, index in self._loader.sampler]
        if epoch < self._draws:
            return torch.arange(len(order))
        assert rows.indices is not None
        place = {index: number for number, index in reversed(list(enumerate(rows.indices.tolist())))}
        return torch.tensor([place[index] for index in order])
