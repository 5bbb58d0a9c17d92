"""What a study explains: a model with its classes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline._core.seeding import derive_seed
from sightline.errors import SightlineError
from sightline.explainers import layer_for
from sightline.models import load_model
from sightline.models.labels import default_class_names
from sightline.network.input_spec import InputSpec
from sightline.network.logits import probabilities_of
from sightline.studies.study import SizedModel
from sightline.training import Run, load_run


@dataclass(frozen=True)
class Subject:
    """A model on its device.

    Attributes:
        model: in eval mode.
        spec: what it expects of its input.
        layer: where maps are taken; None = chosen by the family.
        classes: the names of its classes: as given, else ImageNet's for 1000 of them, else their numbers.
    """

    model: nn.Module
    spec: InputSpec
    layer: str | None
    classes: list[str]

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, K) for images (B, 3, H, W) in [0, 1]."""
        with torch.no_grad():
            return probabilities_of(self.model(self.spec.normalize(images)))

    def say(self, images: Tensor) -> list[tuple[str, float]]:
        """What the model says of each image: the likeliest class, and its probability."""
        best = self.probabilities(images).max(1)
        return [(self.classes[k], p) for p, k in zip(best.values.tolist(), best.indices.tolist())]

    def layer_for(self, method: str) -> str | None:
        """The layer for a method that takes its maps from one; others understand something else by it."""
        return layer_for(method, self.layer)


def run_subject(run: Run, device: torch.device) -> Subject:
    """Return the model of a trained run as a subject."""
    loaded = load_run(run, device)
    return Subject(loaded.model, loaded.input_spec, loaded.layer, loaded.classes)


def load_subject(choice: SizedModel, device: torch.device, seed: int, key: str = "model") -> Subject:
    """Load a model; random weights are seeded.

    Args:
        choice: what to load.
        device: where to.
        seed: of random weights.
        key: of the study, for messages.

    Raises:
        SightlineError: there is no such model, or its weights cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, choice.name, "weights"))
        try:
            model, spec = load_model(choice.name, choice.weights, size=choice.size)
        except SightlineError as error:
            raise SightlineError(f"{error} ({key}.weights=FILE gives a file, {key}.name=NAME another model)") from error
    return Subject(model.eval().to(device), spec, choice.layer, choice.classes or default_class_names(model))
