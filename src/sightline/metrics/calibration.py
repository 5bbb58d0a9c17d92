"""Calibration: the gap between confidence and accuracy."""

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from sightline._core.checks import check_count
from sightline._core.tensors import check_unit_range
from sightline.metric_base.base import PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.accuracy import correct


def expected_calibration_error(
    confidences: Tensor, hits: Tensor, bins: int = 15, weights: Tensor | None = None
) -> Tensor:
    """Compute the expected calibration error: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), Eq. 3.

    Args:
        confidences: (..., n) probability of the predicted class.
        hits: (..., n) 1 where the prediction is right, else 0.
        bins: number of equal intervals of the confidence; a value between two falls in the lower one.
        weights: (..., n) how often each image counts; None = once.

    Returns:
        (...) in [0, 1]: the gap of mean confidence and accuracy in each bin, weighted by its share of the images.
    """
    edges = torch.linspace(0, 1, bins + 1, device=confidences.device, dtype=confidences.dtype)
    place = torch.bucketize(confidences.contiguous(), edges[1:-1])
    counts = torch.ones_like(confidences) if weights is None else weights
    differences = counts * (confidences - hits)
    gaps = differences.new_zeros(*differences.shape[:-1], bins)
    gaps = gaps.scatter_add(-1, place.expand_as(differences), differences)
    return gaps.abs().sum(-1) / counts.sum(-1)


@register("ece")
class ECE(PerImageMetric):
    """Expected calibration error: how far confidence and accuracy are apart, in [0, 1]; lower is better.

    An image's own value is its confidence minus its correctness, above 0 where the model is too sure.

    Args:
        bins: number of equal intervals of the confidence (> 0).

    References:
        Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), Eq. 3.

    Examples:
        >>> metric = sl.metrics.ECE()
        >>> metric.update(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
        >>> metric.compute().item()  # 75 % sure, 50 % right
        0.25
    """

    needs_maps = False
    higher_is_better = False
    confidences: list[Tensor]

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        check_count(bins=bins)
        self.bins = bins
        self.add_state("confidences", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Take a batch: probabilities (B, K) and labels (B,)."""
        self.update_batch(Observation(probabilities=probabilities, labels=labels))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the confidence minus the correctness of each image."""
        probabilities = observation.require("probabilities")
        hits = correct(probabilities, observation.require("labels"))
        check_unit_range(probabilities, "probabilities", "(softmax of the logits)")
        return probabilities.amax(1) - hits

    def update_batch(self, observation: Observation) -> None:
        """Measure a batch, and keep its confidences."""
        super().update_batch(observation)
        self.confidences.append(observation.require("probabilities").amax(1).float())

    def compute(self) -> Tensor:
        """Return the expected calibration error over all images and all processes."""
        super().compute()
        return self.resample(torch.arange(self.n, device=self.device)[None])[0]

    def resample(self, index: Tensor) -> Tensor:
        """Return the expected calibration error (R,) of R other draws of the images."""
        confidences = dim_zero_cat(self.confidences)
        hits = (confidences - self._gathered()).round()
        return expected_calibration_error(confidences[index], hits[index], self.bins)
