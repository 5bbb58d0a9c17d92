"""The head of a frozen network, fitted on marked images, and what its answers would be for images it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.seeding import generator
from sightline.fixing.mending.trunk import Features
from sightline.training.heads import fit_attention, fit_linear

FOLDS = 5
ATTENTION_ROWS = 400  # images that an attention is fitted on: more change nothing and take time


@dataclass(frozen=True)
class Rows:
    """Features of draws with what is known of them; one row an image of a draw.

    Attributes:
        features: of the frozen network.
        inside: (n, S, S) uint8, where the object is.
        outside: (n, S, S) uint8, what must not matter.
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
        unchanged: weight of the images as they are, where changed ones have 1. Their background gives the class away.
    """

    strength: float
    unchanged: float


def fit_head(inputs: Tensor, rows: Rows, penalty: Penalty, classes: int) -> tuple[Tensor, Tensor]:
    """Fit a linear head on what it gets (n, D); images without a changed form count in full."""
    paired = torch.zeros(int(rows.indices.max()) + 1, dtype=torch.bool)
    paired[rows.indices[rows.changed]] = True
    weights = torch.where(rows.changed | ~paired[rows.indices], 1.0, penalty.unchanged).double()
    kept = weights > 0
    return fit_linear(inputs[kept], rows.labels[kept], weights[kept], strength=penalty.strength, classes=classes)


def attend(rows: Rows) -> tuple[Tensor, Tensor]:
    """Fit the attention before pooling."""
    assert rows.features.last is not None
    known = rows.inside.flatten(1).any(1).nonzero()[:, 0]
    known = known[:: max(1, len(known) // ATTENTION_ROWS)]
    last = rows.features.last[known].float()
    inside, outside = (shares(part[known], last.shape[-2:]) for part in (rows.inside, rows.outside))
    weight, bias = fit_attention(last, inside, outside, strength=2e-2)
    return weight.float(), bias.float()


def shares(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the share (n, h, w) of each place of a grid that masks (n, S, S) cover."""
    return F.interpolate(masks[:, None].float(), tuple(grid), mode="area")[:, 0]


def folds(labels: Tensor, seed: int, number: int = FOLDS) -> Tensor:
    """Return the fold (N,) of each image, with every class in every fold where it has enough images."""
    fold = torch.empty(len(labels), dtype=torch.int64)
    start = 0
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator(seed, label, "folds"))]
        fold[members] = (torch.arange(len(members)) + start) % number
        start += len(members)
    return fold


def cross_logits(inputs: Tensor, rows: Rows, penalty: Penalty, fold_of: Tensor, classes: int) -> Tensor:
    """Return the logits (n, K) of each row by a head fitted on the augmented rows of the images in the other folds.

    Rows are NaN where the other folds lack a class.
    """
    logits = torch.full((len(rows.labels), classes), torch.nan, dtype=torch.float64)
    row_fold = fold_of[rows.indices]
    for number in fold_of.unique().tolist():
        seen = ((row_fold != number) & rows.augmented).nonzero()[:, 0]
        held = (row_fold == number).nonzero()[:, 0]
        if len(held) and len(rows.labels[seen].unique()) == classes:
            weight, bias = fit_head(inputs[seen], rows[seen], penalty, classes)
            logits[held] = inputs[held].double() @ weight.T + bias
    return logits
