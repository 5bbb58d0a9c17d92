"""Accuracy, over all images and in the worst group."""

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from sightline.errors import SightlineError
from sightline.metric_base.base import PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.network.logits import hits


def correct(scores: Tensor, labels: Tensor) -> Tensor:
    """1 where the highest score is the label's or that of one of the labels, else 0.

    Args:
        scores: (B, K) logits or probabilities.
        labels: (B,) int64, or (B, K) with 1 for every class that an image shows.

    Raises:
        SightlineError: a score is NaN, or the shapes disagree.
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or labels.shape not in (scores.shape[:1], scores.shape):
        raise SightlineError(
            f"scores have shape {tuple(scores.shape)} and labels {tuple(labels.shape)}; expected (B, K) with "
            "K >= 2, and (B,) or (B, K)"
        )
    classes = scores.shape[1] if labels.ndim == 1 else 2
    low, high = (int(value) for value in torch.aminmax(labels)) if labels.numel() else (0, 0)
    if low < 0 or high >= classes:
        expected = (
            f"class indices 0 .. {classes - 1}" if labels.ndim == 1 else "1 for every class that an image shows, else 0"
        )
        raise SightlineError(f"labels range over [{low}, {high}]; expected {expected}")
    if scores.isnan().any():
        bad = scores.isnan().any(1).nonzero().flatten().tolist()
        raise SightlineError(f"scores hold NaN (images {bad[:10]} of the batch)")
    return hits(scores, labels).float()


def group_accuracies(hits: Tensor, groups: Tensor) -> dict[int, tuple[float, int]]:
    """Return the accuracy and the number of images of each group.

    Args:
        hits: (n,) 1 where the prediction is right, else 0.
        groups: (n,) int64; below 0 = the image belongs to none.
    """
    found = {int(g): hits[groups == g].double() for g in groups.unique() if g >= 0}
    return {group: (float(members.mean()), len(members)) for group, members in found.items()}


def worst_group_accuracy(hits: Tensor, groups: Tensor) -> Tensor:
    """Return the lowest accuracy of any group that has images.

    Args:
        hits: (..., n) 1 where the prediction is right, else 0.
        groups: (..., n) int64; below 0 = the image belongs to none.

    Returns:
        (...), infinity where no image belongs to a group.
    """
    accuracies = [hits.new_full(hits.shape[:-1], torch.inf)]
    for group in groups.unique():
        if group >= 0:
            members = groups == group
            size = members.sum(-1)
            accuracies.append(torch.where(size > 0, (hits * members).sum(-1) / size, torch.inf))
    return torch.stack(accuracies).amin(0)


@register("accuracy")
class Accuracy(PerImageMetric):
    """Share of the images whose class with the highest score is the label, in [0, 1]; higher is better.

    Examples:
        >>> metric = sl.metrics.Accuracy()
        >>> metric.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        >>> metric.compute().item()
        0.5
    """

    needs_maps = False

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Take a batch: logits or probabilities (B, K) and labels (B,)."""
        self.update_batch(Observation(probabilities=scores, labels=labels))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """1 where the prediction is right."""
        return correct(observation.require("probabilities"), observation.require("labels"))


@register("worst_group_accuracy")
class WorstGroupAccuracy(PerImageMetric):
    """Lowest accuracy of any group of images, in [0, 1]; higher is better.

    Attributes:
        table: group -> (accuracy, number of images), over all processes, as of the last `compute()`.

    References:
        Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for
            Worst-Case Generalization" (ICLR 2020), the accuracy of its experiments.

    Examples:
        >>> metric = sl.metrics.WorstGroupAccuracy()
        >>> scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [4.0, 1.0]])
        >>> metric.update(scores, labels=torch.tensor([0, 0, 0]), groups=torch.tensor([0, 1, 1]))
        >>> metric.compute().item(), metric.table
        (0.5, {0: (1.0, 1), 1: (0.5, 2)})
    """

    needs_maps = False
    needs_groups = True
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("groups", [], dist_reduce_fx="cat")
        self.table: dict[int, tuple[float, int]] = {}

    def update(self, scores: Tensor, labels: Tensor, groups: Tensor) -> None:
        """Take a batch: logits or probabilities (B, K), labels (B,), groups (B,) with -1 = none."""
        self.update_batch(Observation(probabilities=scores, labels=labels, groups=groups))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """1 where the prediction is right, NaN for an image without a group."""
        hits = correct(observation.require("probabilities"), observation.require("labels"))
        return torch.where(observation.require("groups") >= 0, hits, torch.nan)

    def update_batch(self, observation: Observation) -> None:
        """Measure a batch, and keep its values and groups."""
        super().update_batch(observation)
        # As floats, because torchmetrics gathers an empty float tensor from a process that has seen no image.
        self.groups.append(observation.require("groups").float())

    def compute(self) -> Tensor:
        """Return the lowest accuracy; `table` then holds the accuracy of each group.

        Raises:
            SightlineError: no image belongs to a group.
        """
        super().compute()
        self.table = group_accuracies(self._gathered(), dim_zero_cat(self.groups))
        return torch.tensor(min(accuracy for accuracy, _ in self.table.values()), device=self.device)

    def resample(self, index: Tensor) -> Tensor:
        """Return the lowest accuracy (R,) of R other draws of the images that belong to a group."""
        values, groups = self._gathered(), dim_zero_cat(self.groups)
        counted = ~values.isnan()
        return worst_group_accuracy(values[counted][index], groups[counted][index])
