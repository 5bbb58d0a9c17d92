"""What a model answers when the marks in the regions to avoid go, come and change owners."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sightline.data.batch import Batch
from sightline.evaluation import evaluate_model
from sightline.network.input_spec import InputSpec

CHANGES = {
    "mark_removed": "mark_removed_accuracy",
    "mark_pasted": "mark_pasted_accuracy",
    "mark_swapped": "mark_swapped_accuracy",
}
"""Measurement -> the metric that it is."""


def measure_marks(
    model: nn.Module, batches: Sequence[Batch], hits: Tensor, *, input_spec: InputSpec | None, seed: int
) -> dict[str, Tensor]:
    """Return measurement -> (n,), NaN for an image without a value; nothing where no image has a region to avoid.

    Args:
        model: a classifier that returns logits (B, K).
        batches: the images, with regions to avoid and indices.
        hits: (n,) 1 where the model is right on the unchanged image, else 0.
        input_spec: normalizes images in [0, 1].
        seed: of whose mark an image gets.
    """
    if batches[0].avoid is None:
        return {}
    metrics = {metric: {"seed": seed} for metric in CHANGES.values()}
    samples = evaluate_model(model, batches, [], metrics, input_spec=input_spec, seed=seed).samples
    nothing = torch.full_like(hits, torch.nan)
    found = {name: samples.get(metric, nothing) for name, metric in CHANGES.items()}
    other = torch.where(found["mark_swapped"].isnan(), found["mark_pasted"], found["mark_swapped"])
    return {**found, "mark_loss": hits - other}
