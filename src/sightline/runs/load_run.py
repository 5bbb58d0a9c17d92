"""`load_run`: the one way to open a trained run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from sightline._core.devices import pick_device
from sightline._core.reading import reading
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.loader import create_loader
from sightline.models import load_model
from sightline.models.filter_groups import carry_filter_groups, stored_filter_groups
from sightline.network.input_spec import InputSpec
from sightline.runs.recipe import Recipe
from sightline.runs.run import Run
from sightline.runs.run_data import RunSplits, read_splits


@dataclass(frozen=True)
class LoadedRun:
    """A trained run with its model.

    Attributes:
        run: the run folder.
        recipe: the recipe that the run was trained with.
        weights: the file that the model's weights were read from.
        model: the classifier in eval mode and channels-last memory format, with the groups of filters that icCNN made.
        input_spec: the normalization and the size (H, W) that the run was trained with.
        layer: the layer that the guide looked at, else the recipe's; None = chosen by the model's family.
        classes: the name of each logit.
    """

    run: Run
    recipe: Recipe
    weights: Path
    model: nn.Module
    input_spec: InputSpec
    layer: str | None
    classes: list[str]

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return next(self.model.parameters()).device

    @cached_property
    def splits(self) -> RunSplits:
        """The data of the recipe, complete: `train_samples`, `train_fraction` and `mask_fraction` remove nothing.

        Raises:
            SightlineError: the data is missing or has changed since the training, or its classes are not those of the run.
        """
        return read_splits(self.run)

    def loader(
        self, images: ImageDataset, batch_size: int = 32, indices: Sequence[int] | None = None
    ) -> "DataLoader[Sample]":
        """Return images in order, in the run's size and with its number of workers; `indices` None = all of them."""
        size, num_workers = self.input_spec.size[0], self.recipe.num_workers
        return create_loader(
            images, size=size, batch_size=batch_size, train=False, num_workers=num_workers, indices=indices
        )


def load_run(
    run: str | Path | Run,
    device: str | torch.device | None = None,
    checkpoint: Literal["last", "best"] | None = None,
) -> LoadedRun:
    """Load the model that a run trained, with what is known about it.

    A run that was interrupted after its first epoch, or that is still training, can be loaded too, with a warning.

    Args:
        run: a run or its folder.
        device: the device of the model; None = a GPU if there is one.
        checkpoint: None = the best one if the recipe names the metric that selects it, else the last.

    Returns:
        The run with its model.

    Raises:
        SightlineError: the folder holds no run, or the run has no such checkpoint yet.
    """
    run = Run.open(run)
    facts, weights = run.facts, run.weights(checkpoint)
    with reading(run.path / "run.json"):
        spec = InputSpec(*(tuple(facts["input_spec"][key]) for key in ("mean", "std", "size")))
        name, layer, classes = facts["model"]["name"], facts["model"]["layer"], list(facts["classes"])
    model, _ = load_model(name, weights, classes, spec.size[0])
    if layer is not None and len(groups := stored_filter_groups(run.resume_point)):
        carry_filter_groups(model, layer, groups)
    model.to(pick_device(device)).to(memory_format=torch.channels_last)
    return LoadedRun(run, run.recipe, weights, model.eval(), spec, layer, classes)
