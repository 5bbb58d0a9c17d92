"""How strong the penalty of a linear head is, by validation."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_choice
from sightline.errors import SightlineError
from sightline.heads.linear import fit_linear
from sightline.heads.scaling import as_double, check_features
from sightline.metrics.accuracy import correct, worst_group_accuracy

Measure = Literal["mean", "worst"]

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
"""The strengths that are tried, the strongest first."""


def choose_strength(
    features: Tensor,
    labels: Tensor,
    validation_features: Tensor,
    validation_labels: Tensor,
    *,
    weights: Tensor | None = None,
    classes: int | None = None,
    measure: Measure = "mean",
    groups: Tensor | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
) -> tuple[float, dict[float, float]]:
    """Choose the strength of `fit_linear` by its accuracy on validation features; of equal ones the strongest.

    Args:
        features: (N, D) of the training images.
        labels: of the training images, as for `fit_linear`.
        validation_features: (M, D).
        validation_labels: (M,) or (M, K), likewise.
        weights: (N,) of the training images.
        classes: number of logits, as for `fit_linear`.
        measure: the `mean` accuracy, or that of the `worst` group.
        groups: (M,) of the validation images, for the worst; below 0 = none. None = their classes.
        strengths: what to try.

    Returns:
        The strength, and the accuracy of each.

    Raises:
        SightlineError: an argument is not as above.
    """
    check_choice(Measure, measure=measure)
    check_features(validation_features, "M", "D")
    if not strengths:
        raise SightlineError("strengths is empty; expected at least one number")
    if measure == "mean":
        groups = None
    elif groups is None:
        if validation_labels.ndim == 2:
            raise SightlineError("measure is 'worst' for images with several labels; expected 'mean', or groups")
        groups = validation_labels
    elif groups.shape != validation_labels.shape[:1] or not (groups >= 0).any():
        raise SightlineError(
            f"groups have shape {tuple(groups.shape)}; expected one of at least 0 for each validation image"
        )
    rows = as_double(validation_features)
    head, found = None, {}
    for strength in sorted(strengths, reverse=True):
        weight, bias = head = fit_linear(features, labels, weights, strength=strength, classes=classes, start=head)
        logits = rows.to(weight.device) @ weight.T + bias
        logits = F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits
        hits = correct(logits, validation_labels.to(logits.device))
        value = hits.mean() if groups is None else worst_group_accuracy(hits, groups.to(hits.device))
        found[strength] = value.item()
    return max(found, key=found.__getitem__), found
