"""The weights that a run's guide gives the training images, kept as the run trains."""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sightline._core.files import write_atomically
from sightline._core.reading import read_tensors, reading
from sightline.guides import from_config
from sightline.guides.measured_weights import MeasuredWeights
from sightline.objectives.base import GuideSum
from sightline.runs import Run

STORED = "_stored._extra_state"  # how a checkpoint calls the weights of a guide that has them


class WeightRecorder:
    """Keeps the weights of the training images whenever an epoch was trained with newly measured or changed ones.

    Called after an epoch, it reads the weights from the checkpoint. It writes them to the run's folder and resumes with the
    run; an epoch that was written just before the run was killed is read when the run resumes.

    Args:
        run: the run, which may not have begun.

    Attributes:
        epochs: counted from 1, those that were trained with new weights.
        weights: (N,) of each of them; images that have none yet have weight 1.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path: Path = run.path / "weights.safetensors"
        self.epochs: list[int] = []
        self.weights: list[Tensor] = []
        if self.path.is_file():
            kept, _ = read_tensors(self.path)
            with reading(self.path):
                self.epochs, self.weights = kept["epochs"].tolist(), list(kept["weights"])
        if run.resume_point.is_file():
            self(False)

    def __call__(self, more: bool) -> None:
        """Keep the weights of the checkpoint's last epoch, if they are new."""
        epoch, weights = stored_weights(self.run.resume_point)
        before = self.weights[-1] if self.weights else torch.ones_like(weights)
        if self.epochs and epoch <= self.epochs[-1]:
            return
        if torch.equal(weights, before) and not self._measured(epoch - 1):
            return
        self.epochs.append(epoch)
        self.weights.append(weights)
        kept = {"epochs": torch.tensor(self.epochs), "weights": torch.stack(self.weights)}
        write_atomically(self.path, save(kept))

    def _measured(self, epoch: int) -> bool:
        """Whether a pass over the data came before an epoch, counted from 0; its weights may be those of the pass before."""
        guide = from_config(self.run.recipe.guide)
        guides = [each for _, each in guide.summands] if isinstance(guide, GuideSum) else [guide]
        return any(isinstance(each, MeasuredWeights) and each.due(epoch) for each in guides)


def stored_weights(checkpoint: Path) -> tuple[int, Tensor]:
    """Return how many epochs are done, and the weights (N,) of the training images; (0,) if no guide has any."""
    named, metadata = read_tensors(checkpoint, ending=STORED)
    with reading(checkpoint):
        epoch = json.loads(metadata["sightline"])["epoch"]
    return epoch, next((weights for weights in named.values() if len(weights)), torch.empty(0))
