"""Where the maps of a model are, and where maps of chance are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.data.batch import Batch
from sightline.evaluation import evaluate_model
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection

BASELINES = ("randomcam", "gaussian")  # maps that know nothing of the model, or nothing of the image
METRICS = {
    "energy_in_mask": "gaussian", "pointing_game": "gaussian", "view_stability": "randomcam", "energy_in_avoid": "gaussian",
}  # fmt: skip
"""Metric -> the baseline that says what it is by chance."""


@dataclass(frozen=True)
class MapMeasurements:
    """What was measured of the maps of n images.

    Attributes:
        values: Metric -> (n,), NaN for an image without a value.
        chances: Metric -> its mean for the baseline; NaN if no image has a value.
        saved: (n, H, W) uint8, the maps.
    """

    values: dict[str, Tensor]
    chances: dict[str, float]
    saved: Tensor


def measure_maps(
    model: nn.Module,
    batches: Sequence[Batch],
    indices: Tensor,
    explainer: str,
    *,
    input_spec: InputSpec | None,
    layer: LayerSelection,
    seed: int,
    progress: bool,
) -> MapMeasurements:
    """Measure the maps of an explainer and of the baselines.

    Args:
        model: A classifier that returns logits (B, K).
        batches: The images, with masks and indices.
        indices: (n,) Index of each image, in the order of the batches.
        explainer: Name of the explainer.
        input_spec: Normalizes images in [0, 1].
        layer: The explainer's target layer.
        seed: Seed of the evaluation.
        progress: Whether to show a bar.
    """
    without = {"energy_in_avoid"} if batches[0].avoid is None else set()
    metrics = {name: baseline for name, baseline in METRICS.items() if name not in without}
    found = evaluate_model(
        model, batches, (explainer, *BASELINES), tuple(metrics), input_spec=input_spec, layer=layer, gallery=len(indices),
        seed=seed, progress=progress,
    )  # fmt: skip
    nothing = torch.full((len(indices),), torch.nan)
    assert found.gallery is not None
    row = {int(index): row for row, index in enumerate(found.gallery.index)}
    return MapMeasurements(
        values={metric: found.samples.get(f"{metric}@{explainer}", nothing) for metric in metrics},
        chances={
            metric: float(found.samples.get(f"{metric}@{baseline}", nothing).nanmean())
            for metric, baseline in metrics.items()
        },
        saved=found.gallery.maps[explainer][[row[int(index)] for index in indices]],
    )
