"""A linear head on features, fitted to the one minimum of its loss."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_positive
from sightline.heads.minimum import minimize
from sightline.heads.scaling import as_double, check_features, scaling_of, shares
from sightline.heads.targets import check_shown, targets_of

TOLERANCE = 1e-8


def fit_linear(
    features: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    strength: float,
    classes: int | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression with an L2 penalty on standardized features.

    What is minimized, with z the features scaled to mean 0 and standard deviation 1: the weighted mean over the images of the
    cross-entropy of `W z + b`, plus `strength / 2 * ||W||^2`. The bias is free. With equal weights this is scikit-learn's
    `LogisticRegression(C=1 / (strength * N))` behind its `StandardScaler`; for two logits of two classes, which share what
    scikit-learn has in one, with half the strength. A weight of 2 equals an image that comes twice.

    Args:
        features: (N, D) floats.
        labels: (N,) class indices; or (N, K) with 1 for every class that an image shows, for K independent regressions by the
            binary cross-entropy.
        weights: (N,) of the images, at least 0; None = equal ones.
        strength: of the penalty, above 0.
        classes: number of logits; 1 = a single logit of two classes, the labels being 0 and 1. None = one for each class up to
            the largest label.
        start: a head (K, D) and (K,) to start from, such as one of another strength. It changes the time, not the result.
        tolerance: largest gradient where the search ends, above 0. A larger one takes less time.

    Returns:
        Weight (K, D) and bias (K,) in float64 for the unscaled features: the scaling is folded in.

    Raises:
        SightlineError: an argument is not as above, or a class has no image of positive weight: its bias would be infinite.
    """
    check_features(features, "N", "D")
    check_positive(strength=strength, tolerance=tolerance)
    rows = as_double(features)
    share = shares(weights, rows)
    targets = targets_of(labels.to(rows.device), len(rows), classes)
    several = targets.ndim == 2
    count = targets.shape[1] if several else classes or int(targets.max()) + 1
    check_shown(targets, count, share)
    scaling = scaling_of(rows, share, features.dtype)
    scaled = scaling(rows)

    def linear(parameters: Tensor) -> Iterator[Tensor]:
        yield scaled @ parameters[:, :-1].T + parameters[:, -1]
        yield parameters[:, :-1]

    def loss(logits: Tensor) -> Tensor:
        if several:
            return share @ F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
        return share @ F.cross_entropy(logits, targets, reduction="none")

    begin = scaled.new_zeros(count, scaled.shape[1] + 1)
    if start is not None:
        weight, bias = scaling.unfold(*(as_double(part).to(begin.device) for part in start))
        begin = torch.cat([weight, bias[:, None]], 1)
    found = minimize(linear, (loss, lambda weight: strength / 2 * weight.square().sum()), begin, tolerance)
    return scaling.fold(found[:, :-1], found[:, -1])


def balanced_weights(strata: Tensor) -> Tensor:
    """Return weights (N,) with which every stratum (N,), such as a class or a group, counts equally; their mean is 1."""
    _, member, counts = strata.unique(return_inverse=True, return_counts=True)
    return len(strata) / (len(counts) * counts[member].double())
