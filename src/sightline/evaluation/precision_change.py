"""What bfloat16 changes in the values of an evaluation: the same values in float32, of a few of the images."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sightline.data.batch import Batch
from sightline.evaluation.meters import Meter

COMPARED = 8  # images; of those that the slow metrics see, where these see as many


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """Return the images of a batch that a bool tensor (B,) selects."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return batch.changed(**{name: value[rows.to(value.device)] for name, value in tensors.items()})


def change_of(samples: Mapping[str, Tensor], exact: Sequence[Meter], compared: Tensor) -> dict[str, Any]:
    """Return how far the values of some images are from those in float32.

    Args:
        samples: column -> value (total,) of each image, NaN where there is none.
        exact: what was measured in float32.
        compared: (total,) bool, the images that were measured in float32 too.

    Returns:
        `n`, the images compared, and under `columns`, by column: `n` of them with a value in both, the `mean` of the
        differences and the `largest` absolute difference.
    """
    columns = {}
    for meter in exact:
        name = meter.name if meter.explainer is None else f"{meter.name}@{meter.explainer}"
        if not meter.places or name not in samples:
            continue
        difference = (samples[name] - meter.column(len(compared)))[compared]
        known = difference[~difference.isnan()]
        if len(known):
            largest = float(known.abs().max())
            columns[name] = {"n": len(known), "mean": float(known.mean()), "largest": largest}
    return {"n": int(compared.sum()), "columns": columns}


def describe_change(change: Mapping[str, Any]) -> str:
    """Return what `change_of` found, in one line."""
    told = [f"{name} {each['mean']:+.2g} ({each['largest']:.2g})" for name, each in change["columns"].items()]
    return (
        f"bfloat16 minus float32, mean (largest) over {change['n']} images: {', '.join(told) or 'no value to compare'}"
    )
