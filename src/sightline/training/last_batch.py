"""Whether a model can train on the last batch of an epoch, which may hold a single image."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.network.modes import evaluating
from sightline.network.tap import StillStatistics
from sightline.objectives.objective import Objective
from sightline.runs.recipe import Recipe


def last_batch_size(recipe: Recipe, images: int, processes: int) -> int:
    """Return how many images the smallest batch of an epoch has on each process."""
    size = recipe.batch_size // processes
    return size if recipe.drop_last else math.ceil(images / processes) % size or size


def check_single_image(
    objective: Objective, image: Tensor, remedy: str, train: Callable[[], object] | None = None
) -> None:
    """Reject a model that cannot train on one image, as batch norm cannot on a map of one place.

    Args:
        objective: the model with the views of its guides, which go through it together.
        image: (1, C, H, W) as the model takes it.
        remedy: what to do, for the message.
        train: puts what is trained in training mode; None = the whole model is trained.

    Raises:
        SightlineError: the model cannot.
    """
    views = len(objective.views)
    together = views % (objective.view_chunk or views) or objective.view_chunk or views
    model: nn.Module = objective.model
    try:
        with evaluating(objective), torch.random.fork_rng(devices=[]), StillStatistics(model), torch.no_grad():
            (train or model.train)()
            model(image.repeat(together, 1, 1, 1))
    except ValueError as error:
        raise SightlineError(f"a batch of one image cannot be trained on ({error}). {remedy}") from error
