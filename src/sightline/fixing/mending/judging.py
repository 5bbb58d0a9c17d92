"""What the refit changed, on images that nobody marked."""

import numpy as np
import torch
from torch import Tensor

from sightline.evaluation.statistics import over_images, weighted_mean, worst_group
from sightline.fixing.mending.choosing import Mended
from sightline.fixing.mending.fitting import Rows
from sightline.fixing.protocol import Figure
from sightline.network.logits import logits_of

FEW = 20  # images; fewer that nobody marked say too little, so that the marked ones are judged too


def judged_images(marked: Tensor) -> tuple[Tensor, str]:
    """Return which images (N,) judge the refit, and a phrase that says which.

    Args:
        marked: (N,) bool, images whose mask or region to avoid was given or found without a person.
    """
    if (~marked).sum() >= FEW:
        return ~marked, f"the {int((~marked).sum())} images that nobody marked"
    return torch.ones_like(marked), f"all {len(marked)} images, of which {int(marked.sum())} are marked"


def judge(before: Rows, mended: Mended, where: Tensor) -> list[Figure]:
    """Compare the given model with the mended one, on the centre of each image.

    The answers of the mended model are cross-fitted: those for an image come from a head that was fitted on other images.

    Args:
        before: rows with the logits of the given model.
        mended: the mended model, with rows of the same draws.
        where: (N,) bool, the images that count.
    """
    rows = mended.rows
    seen = where[rows.indices] & ~rows.augmented & ~mended.logits.isnan().any(1)
    given = before.features.logits
    right = {"before": logits_of(given).argmax(1) == rows.labels, "after": mended.logits.argmax(1) == rows.labels}
    figures = []
    for name, part in (
        ("accuracy, what must not matter exchanged", rows.changed),
        ("accuracy, images as they are", ~rows.changed),
    ):
        use = seen & part
        if use.any():
            figures.append(_figure(name, {key: hits[use] for key, hits in right.items()}))
            if part is rows.changed:
                figures.append(
                    _figure(f"{name}, worst class", {key: hits[use] for key, hits in right.items()}, rows.labels[use])
                )
    return figures


def gain(before: Rows, mended: Mended, where: Tensor) -> tuple[float, float, float]:
    """Return the gain in accuracy where what must not matter is exchanged, and its 95 % interval over images."""
    rows = mended.rows
    use = where[rows.indices] & ~rows.augmented & rows.changed & ~mended.logits.isnan().any(1)
    after = (mended.logits.argmax(1) == rows.labels)[use].double()
    differences = (after - (logits_of(before.features.logits).argmax(1) == rows.labels)[use].double()).numpy()
    (interval,) = over_images(len(differences), lambda counts: weighted_mean(counts, differences)[:, None])
    return float(differences.mean()), interval.low, interval.high


def _figure(name: str, right: dict[str, Tensor], labels: Tensor | None = None) -> Figure:
    columns = {key: values.double().numpy() for key, values in right.items()}

    def statistic(counts: np.ndarray) -> np.ndarray:
        parts = [
            weighted_mean(counts, column) if labels is None else worst_group(counts, column, labels.numpy())
            for column in columns.values()
        ]
        return np.stack(parts, 1)

    count = len(columns["after"])
    value = statistic(np.ones((1, count)))[0]
    interval = over_images(count, statistic)[1]
    return Figure(name, float(value[0]), float(value[1]), (interval.low, interval.high))
