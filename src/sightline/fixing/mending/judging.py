"""What the refit changed, on images that nobody marked."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sightline.fixing.mending.choosing import Mended
from sightline.fixing.protocol import Figure
from sightline.network.logits import logits_of
from sightline.statistics.bootstrap import over_images, weighted_mean, worst_group

UNCHANGED = "accuracy, images unchanged"
REORDERED = 0.3  # gain in accuracy from which on another order of the classes is named
FEW = 20  # images; fewer that nobody marked say too little, so the marked ones are judged too


def judged_images(mended: Mended, marked: Tensor) -> tuple[Tensor, str]:
    """Return which images (N,) judge the refit, and a phrase that says which.

    They are those that nobody marked and in which what must not matter is known all the same, because it was found. If these
    are fewer than 20, all images judge.

    Args:
        mended: the mended model, with the exchanged forms of the images.
        marked: (N,) bool, images that a person marked.
    """
    exchanged, predicted = torch.zeros_like(marked), predicted_images(mended, marked)
    exchanged[mended.still.indices[mended.still.changed]] = True
    unmarked = exchanged & predicted & ~marked
    if unmarked.sum() >= FEW:
        return unmarked, f"the {int(unmarked.sum())} images without a given mask or region"
    kept = "all" if predicted.all() else "the"
    which = (
        f"{kept} {int(predicted.sum())} images, of which {int((marked & predicted).sum())} have a given mask or region"
    )
    return predicted, which


def predicted_images(mended: Mended, marked: Tensor) -> Tensor:
    """Return which images (N,) have a cross-fitted prediction; without the only image of a class there is none."""
    found = torch.zeros_like(marked)
    found[mended.still.indices[~mended.logits.isnan().any(1)]] = True
    return found


def judge(mended: Mended, where: Tensor) -> list[Figure]:
    """Compare the given model with the mended one, on the centre of each image.

    The answers of the mended model are cross-fitted: those for an image come from a head that was fitted on other images.

    Args:
        mended: the mended model, with what both answer.
        where: (N,) bool, the images that count.
    """
    rows = mended.still
    seen = where[rows.indices] & ~mended.logits.isnan().any(1)
    right = {
        "before": logits_of(rows.features.logits).argmax(1) == rows.labels,
        "after": mended.logits.argmax(1) == rows.labels,
    }
    measured = []
    for name, part in (
        ("accuracy, background or mark exchanged", rows.changed),
        (UNCHANGED, ~rows.changed),
    ):
        use = seen & part
        if use.any():
            measured.append(_figure(name, {key: hits[use] for key, hits in right.items()}))
            if part is rows.changed:
                measured.append(
                    _figure(f"{name}, worst class", {key: hits[use] for key, hits in right.items()}, rows.labels[use])
                )
    return measured


def gain(mended: Mended, where: Tensor) -> tuple[float, float, float]:
    """Return the gain in accuracy where what must not matter is exchanged, and its 95 % interval over images."""
    rows, use = mended.still, _exchanged(mended, where)
    after = (mended.logits.argmax(1) == rows.labels)[use].double()
    differences = (after - (logits_of(rows.features.logits).argmax(1) == rows.labels)[use].double()).numpy()
    (interval,) = over_images(len(differences), lambda counts: weighted_mean(counts, differences)[:, None])
    return float(differences.mean()), interval.low, interval.high


def chance(mended: Mended, where: Tensor) -> float:
    """Return the accuracy of always answering the most common class, where what must not matter is exchanged."""
    labels = mended.still.labels[_exchanged(mended, where)]
    return labels.bincount().max().item() / len(labels)


def _exchanged(mended: Mended, where: Tensor) -> Tensor:
    """Return which rows show images that count with what must not matter exchanged, and have a cross-fitted answer."""
    return where[mended.still.indices] & mended.still.changed & ~mended.logits.isnan().any(1)


def other_order(mended: Mended, classes: Sequence[str]) -> str | None:
    """Return a note where the answers of the given model fit the classes far better in another order; None where not.

    Args:
        mended: the mended model, with what the given one answers.
        classes: in the order that was taken to be that of the logits.
    """
    unchanged = ~mended.still.changed
    answers = logits_of(mended.still.features.logits)[unchanged].argmax(1)
    counts = torch.zeros(len(classes), len(classes), dtype=torch.float64)
    counts.index_put_((mended.still.labels[unchanged], answers), torch.ones(len(answers)).double(), accumulate=True)
    likely = counts.argmax(1)  # the answer for each class
    taken, other = (
        counts[range(len(classes)), each].sum().item() / len(answers) for each in (range(len(classes)), likely)
    )
    if len(likely.unique()) < len(classes) or other - taken < REORDERED:
        return None
    order = ", ".join(classes[place] for place in likely.argsort().tolist())
    return (
        f"the classes of the model have no names, and its predictions fit another order better: the accuracy is {taken:.0%} "
        f"in the order of the folder, and {other:.0%} in the order {order}. If that is the order of the logits, pass it as "
        "classes"
    )


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
