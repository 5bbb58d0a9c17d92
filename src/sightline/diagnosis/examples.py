"""The images that a page shows in addition to the worst: confused classes, and the best and worst images of each class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CONFUSIONS, EACH = 6, 2  # pairs of classes that are shown, and images of each
CLASSES = 12  # whose best and worst images are shown


@dataclass(frozen=True)
class Confusion:
    """A class whose images are taken for another one.

    Attributes:
        label: the true class.
        predicted: the answer.
        count: images of which this is true.
        of: images of the true class.
        rows: the images with the surest of these answers.
    """

    label: int
    predicted: int
    count: int
    of: int
    rows: list[int]


@dataclass(frozen=True)
class Extremes:
    """The images of a class on which the model is surest of it, and least sure.

    Attributes:
        label: the class.
        best: rows, the surest first.
        worst: rows, the lowest probability first; none of them is among the best.
    """

    label: int
    best: list[int]
    worst: list[int]


@dataclass(frozen=True)
class Picture:
    """An image with two maps.

    Attributes:
        row: its place among the images of the diagnosis.
        image: (3, H, W) in [0, 1].
        region: (H, W) uint8, where its object is.
        predicted: (H, W) in [0, 1], the map of the answer.
        true: (H, W) in [0, 1], the map of its class; None where it is the answer, or is not shown.
    """

    row: int
    image: Tensor
    region: Tensor
    predicted: Tensor
    true: Tensor | None


@dataclass(frozen=True)
class Examples:
    """What a page shows of single images.

    Attributes:
        confusions: the pairs of classes that are confused most.
        extremes: of each class, the class with the most errors first.
        pictures: the drawing of each row above, by row.
    """

    confusions: list[Confusion]
    extremes: list[Extremes]
    pictures: Mapping[int, Picture]


def find_confusions(labels: Tensor, predicted: Tensor, confidence: Tensor) -> list[Confusion]:
    """Return the pairs (label, prediction) of wrong answers, the most frequent first.

    Args:
        labels: (n,) int64.
        predicted: (n,) int64.
        confidence: (n,) probability of the predicted class.
    """
    pairs = list(zip(labels.tolist(), predicted.tolist()))
    counts, of = Counter(pair for pair in pairs if pair[0] != pair[1]), Counter(labels.tolist())
    found = []
    for (label, answer), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS]:
        rows = ((labels == label) & (predicted == answer)).nonzero().flatten()
        surest = rows[confidence[rows].argsort(descending=True, stable=True)][:EACH]
        found.append(Confusion(label, answer, count, of[label], surest.tolist()))
    return found


def find_extremes(labels: Tensor, hits: Tensor, probability: Tensor) -> list[Extremes]:
    """Return the best and worst images of each class, the class with the lowest accuracy first.

    Args:
        labels: (n,) int64.
        hits: (n,) 1 where the answer is right.
        probability: (n,) probability of the true class.
    """
    found = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        order = rows[probability[rows].argsort(descending=True, stable=True)].tolist()
        worst = order[EACH:][::-1][:EACH]
        found.append((float(hits[rows].mean()), Extremes(label, order[:EACH], worst)))
    return [each for _, each in sorted(found, key=lambda item: (item[0], item[1].label))][:CLASSES]


def shown_rows(confusions: Sequence[Confusion], extremes: Sequence[Extremes]) -> list[int]:
    """Return the rows of all images that are shown, in increasing order."""
    pairs = [row for each in confusions for row in each.rows]
    return sorted({*pairs, *(row for each in extremes for row in (*each.best, *each.worst))})


def both_maps(rows: Sequence[int], predicted: Tensor, labels: Tensor) -> Tensor:
    """Return those of the rows whose answer is wrong, where the map of the true class is another one."""
    places = torch.tensor(rows, dtype=torch.int64)
    return places[predicted[places] != labels[places]]
