"""The scaling of features to mean 0 and standard deviation 1, which a fitted head carries in its own weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline._core.tensors import check_shape
from sightline.errors import SightlineError


@dataclass(frozen=True)
class Scaling:
    """What is taken from features and what they are then multiplied by.

    Attributes:
        mean: (D,) float64.
        factor: (D,) float64, one over the standard deviation; 0 for a feature that is constant up to rounding.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, mean: Tensor, variance: Tensor, precision: torch.dtype) -> "Scaling":
        """Return the scaling to mean 0 and standard deviation 1 of features that came in a type."""
        deviation = variance.clamp_min(0).sqrt()
        constant = deviation <= 4 * torch.finfo(precision).eps * mean.abs()
        return cls(mean, torch.where(constant, 0.0, 1 / deviation))

    def __call__(self, features: Tensor) -> Tensor:
        """Return features (N, D) scaled."""
        return (features - self.mean) * self.factor

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the linear function (K, D) and (K,) of the features that equals one of the scaled features."""
        folded = weight * self.factor
        return folded, bias - folded @ self.mean

    def unfold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the function of the scaled features that equals one of the features, except for constant ones."""
        return torch.where(self.factor > 0, weight / self.factor, 0.0), bias + weight @ self.mean


def scaling_of(features: Tensor, share: Tensor, precision: torch.dtype) -> Scaling:
    """Return the scaling of features (N, D) with weights (N,) whose sum is 1."""
    mean = share @ features
    return Scaling.of(mean, share @ (features - mean).square(), precision)


def as_double(values: Tensor) -> Tensor:
    """Return values as float64, on the CPU where the device has no such type."""
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).double()


def check_features(features: Tensor, *shape: str) -> None:
    """Reject features that are no finite float tensor of a shape, such as "N", "D", or hold no image."""
    check_shape(features, "features", shape)
    if not features.is_floating_point():
        raise SightlineError(f"features have dtype {features.dtype}; expected a float type")
    if bad := [
        place for place, row in enumerate(features) if not row.isfinite().all()
    ]:  # the features can fill the memory
        raise SightlineError(f"NaN or infinity in features (images {bad[:10]})")


def shares(weights: Tensor | None, like: Tensor) -> Tensor:
    """Return weights (N,) of images divided by their sum, float64; None = equal ones.

    Raises:
        SightlineError: they have another length, are negative or not finite, or are all 0.
    """
    if weights is None:
        return like.new_full((len(like),), 1 / len(like), dtype=torch.float64)
    check_shape(weights, "weights", (len(like),), meaning="one per image")
    weights = as_double(weights).to(like.device)
    if not weights.isfinite().all() or (weights < 0).any() or not weights.any():
        raise SightlineError("weights hold NaN, infinity or a negative number, or are all 0; expected numbers >= 0")
    return weights / weights.sum()
