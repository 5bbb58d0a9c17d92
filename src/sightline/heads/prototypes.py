"""A head of prototypes: an image belongs to the class whose mean feature is nearest."""

import torch
from torch import Tensor

from sightline._core.tensors import check_shape
from sightline.heads.scaling import as_double, check_features, scaling_of, shares
from sightline.heads.targets import check_shown, targets_of


def fit_prototypes(
    features: Tensor, labels: Tensor, weights: Tensor | None = None, *, classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the linear head whose probabilities are the softmax of minus the squared distances to the classes' means.

    Distances are those of features scaled to mean 0 and standard deviation 1. What all classes share of them is left out.

    Args:
        features: (N, D) floats, such as features pooled over the object.
        labels: (N,) class indices.
        weights: (N,) of the images, at least 0; None = equal ones.
        classes: number of logits; 1 = a single logit of two classes. None = one for each class up to the largest label.

    Returns:
        Weight (K, D) and bias (K,) in float64 for the unscaled features.

    Raises:
        SightlineError: an argument is not as above, or a class has no image of positive weight.

    References:
        Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, equation 8.
    """
    check_features(features, "N", "D")
    check_shape(labels, "labels", ("N",), meaning="as an image has one prototype")
    rows = as_double(features)
    share = shares(weights, rows)
    labels = targets_of(labels.to(rows.device), len(rows), 2 if classes == 1 else classes)
    count = 2 if classes == 1 else classes or int(labels.max()) + 1
    check_shown(labels, count, share)
    scaling = scaling_of(rows, share, features.dtype)
    scaled = scaling(rows)
    members = torch.nn.functional.one_hot(labels, count) * share[:, None]
    means = members.T @ scaled / members.sum(0)[:, None]
    weight, bias = 2 * means, -means.square().sum(1)
    if classes == 1:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return scaling.fold(weight, bias)
