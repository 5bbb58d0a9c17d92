"""The head of a frozen network, fitted on marked images, and what its answers would be for images it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.seeding import generator
from sightline.fixing.mending.trunk import Features
from sightline.heads import fit_attention, fit_linear

FOLDS = 5
JUDGED = 1e-4  # largest gradient of heads that only judge: their answers are then those of the optimum
ATTENTION_ROWS = 200  # images that an attention is fitted on
ATTENTION_TOLERANCE = 1e-3  # of its gradient; the rest of the way to the optimum takes most of the time


@dataclass(frozen=True)
class Rows:
    """Features of draws with what is known of them; one row per image of a draw.

    Attributes:
        features: of the frozen network.
        inside: (n, h, w) share of each place of the last feature map that the object covers.
        outside: (n, h, w) likewise, of what must not matter.
        labels: (n,).
        indices: (n,) which image of the dataset.
        changed: (n,) bool, whether what must not matter was exchanged.
        foreign: (n,) bool, whether it was exchanged with an image of another class.
        augmented: (n,) bool, whether the image was cropped, flipped and jittered: others are for judging alone.
    """

    features: Features
    inside: Tensor
    outside: Tensor
    labels: Tensor
    indices: Tensor
    changed: Tensor
    foreign: Tensor
    augmented: Tensor

    def __getitem__(self, rows: Tensor) -> "Rows":
        inside, outside, labels, indices = (
            each[rows] for each in (self.inside, self.outside, self.labels, self.indices)
        )
        flags = self.changed[rows], self.foreign[rows], self.augmented[rows]
        return Rows(self.features[rows], inside, outside, labels, indices, *flags)


@dataclass(frozen=True)
class Penalty:
    """How a linear head is fitted.

    Attributes:
        strength: of the penalty on its weights.
        unchanged: weight of the unchanged images, where changed ones have 1. Their background predicts the class.
    """

    strength: float
    unchanged: float


Head = tuple[Tensor, Tensor]


def fit_head(
    inputs: Tensor, rows: Rows, penalty: Penalty, classes: int, start: Head | None = None, tolerance: float = 1e-8
) -> Head:
    """Fit a linear head on what it gets (n, D); images without a changed form count in full."""
    paired = torch.zeros(int(rows.indices.max()) + 1, dtype=torch.bool)
    paired[rows.indices[rows.changed]] = True
    weights = torch.where(rows.changed | ~paired[rows.indices], 1.0, penalty.unchanged).double()
    kept = weights > 0
    return fit_linear(
        inputs[kept], rows.labels[kept], weights[kept],
        strength=penalty.strength, classes=classes, start=start, tolerance=tolerance,
    )  # fmt: skip


def attend(rows: Rows) -> tuple[Tensor, Tensor]:
    """Fit the attention before pooling."""
    assert rows.features.last is not None
    known = rows.inside.flatten(1).any(1).nonzero()[:, 0]
    known = known[:: max(1, len(known) // ATTENTION_ROWS)]
    last = rows.features.last[known].float()
    weight, bias = fit_attention(
        last, rows.inside[known], rows.outside[known], strength=2e-2, tolerance=ATTENTION_TOLERANCE
    )
    return weight.float(), bias.float()


def shares(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the share (n, h, w) of each place of a grid that masks (n, S, S) cover."""
    return F.interpolate(masks[:, None].float(), tuple(grid), mode="area")[:, 0]


def folds(labels: Tensor, seed: int) -> Tensor:
    """Return the fold (N,) of each image, with every class in every fold where it has enough images."""
    fold = torch.empty(len(labels), dtype=torch.int64)
    start = 0
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator(seed, label, "folds"))]
        fold[members] = (torch.arange(len(members)) + start) % FOLDS
        start += len(members)
    return fold


def cross_logits(
    inputs: Tensor, rows: Rows, penalty: Penalty, fold_of: Tensor, classes: int, heads: dict[int, Head]
) -> Tensor:
    """Return the logits (n, K) of each row by a head fitted on the augmented rows of the images in the other folds.

    Rows are NaN where the other folds lack a class.

    Args:
        inputs: (n, D) of the head.
        rows: what is known of them.
        penalty: of the heads.
        fold_of: (N,) the fold of each image.
        classes: number of logits.
        heads: by fold, where each search starts, such as those of another penalty; replaced by those that are found.
    """
    logits = torch.full((len(rows.labels), classes), torch.nan, dtype=torch.float64)
    row_fold = fold_of[rows.indices]
    for number in fold_of.unique().tolist():
        seen = ((row_fold != number) & rows.augmented).nonzero()[:, 0]
        held = (row_fold == number).nonzero()[:, 0]
        if len(held) and len(rows.labels[seen].unique()) == classes:
            start = heads.get(number)
            heads[number] = fit_head(inputs[seen], rows[seen], penalty, classes, start, tolerance=JUDGED)
            weight, bias = heads[number]
            logits[held] = inputs[held].double() @ weight.T + bias
    return logits
