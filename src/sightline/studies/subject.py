"""What a study explains: a model with its classes."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline._core.seeding import derive_seed
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError
from sightline.explainers import layer_for
from sightline.models.loading import make_model
from sightline.models.opening import OpenedModel, as_opened, open_model
from sightline.network.logits import probabilities_of
from sightline.runs import Run, load_run
from sightline.studies.study import SizedModel


@dataclass(frozen=True)
class Subject(OpenedModel):
    """A model on its device, and what studies ask of it."""

    def match_or_warn(self, data: ImageDataset, strict: bool) -> ImageDataset:
        """Return a dataset whose classes are counted as the model counts them.

        Args:
            data: the images.
            strict: reject classes that the model does not know; otherwise only warn, because many metrics use no label.
        """
        try:
            return self.match(data)
        except SightlineError as error:
            if strict:
                raise
            warnings.warn(f"{error}. What uses the label means nothing here", stacklevel=2)
            return data

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, K) for images (B, 3, H, W) in [0, 1]."""
        with torch.no_grad():
            return probabilities_of(self.model(self.input_spec.normalize(images)))

    def say(self, images: Tensor) -> list[tuple[str, float]]:
        """Return the most likely class of each image, and its probability."""
        best, names = self.probabilities(images).max(1), self.names
        return [(names[k], p) for p, k in zip(best.values.tolist(), best.indices.tolist())]

    def layer_for(self, method: str) -> str | None:
        """Return the layer for a method that takes its maps from one; None for methods that use the layer differently."""
        return layer_for(method, self.layer)


def run_subject(run: Run, device: torch.device) -> Subject:
    """Return the model of a trained run as a subject."""
    loaded = load_run(run, device)
    opened = open_model(loaded.model, input_spec=loaded.input_spec, classes=loaded.classes)
    return Subject(**{**vars(opened), "layer": loaded.layer})


def load_subject(choice: SizedModel, device: torch.device, seed: int, key: str = "model") -> Subject:
    """Load a model; random weights are seeded.

    Args:
        choice: what to load.
        device: where to.
        seed: of random weights.
        key: of the study, for messages.

    Raises:
        SightlineError: there is no such model, its weights are not available, or it does not take such images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, choice.name, "weights"))
        try:
            made = make_model(choice.name, choice.weights, size=choice.size)
        except SightlineError as error:
            raise SightlineError(f"{error} ({key}.weights=FILE gives a file, {key}.name=NAME another model)") from error
    try:
        opened = as_opened(choice.name, made, mean=choice.mean, std=choice.std, classes=choice.classes)
    except SightlineError as error:
        raise SightlineError(f"{key}: {error}") from error
    return Subject(**{**vars(opened), "model": opened.model.to(device), "layer": choice.layer})
