"""How much of the class is left in the data without the object: a probe on frozen features of what is left."""

import torch
from torch import Tensor, nn

from sightline.diagnosis.checks import GREY, background_alone
from sightline.diagnosis.probe import Probe, deep_features, probe
from sightline.localization.annotation import Annotated
from sightline.network.input_spec import InputSpec

BORDER = 0.125  # width of the border, as a share of each side


def border_alone(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with gray inside of their border."""
    height, width = images.shape[-2:]
    inside = torch.zeros(height, width, dtype=torch.bool)
    y, x = (max(1, round(BORDER * side)) for side in (height, width))
    inside[y : height - y, x : width - x] = True
    return torch.where(inside, GREY, images)


def probe_leftovers(model: nn.Module, shown: Annotated, input_spec: InputSpec | None) -> list[Probe]:
    """Tell the class from the background alone and from the border alone."""
    rows = shown.usable
    images, regions, labels = shown.images[rows], shown.regions[rows], shown.labels[rows]
    left = {"the background alone": background_alone(images, regions), "the border alone": border_alone(images)}
    return [
        probe(name, deep_features(model, changed, input_spec), labels, tests=len(left))
        for name, changed in left.items()
    ]
