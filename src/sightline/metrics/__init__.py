"""Metrics: from maps, images and a model to a number.

Each is a pure function that gives every image its value, and a thin `torchmetrics.Metric` that averages them.
"""

from typing import Any

from sightline.metrics.accuracy import Accuracy, WorstGroupAccuracy, correct, group_accuracies, worst_group_accuracy
from sightline.metrics.base import PerImageMetric
from sightline.metrics.explanation_image import (
    ADCC,
    AverageDrop,
    AverageIncrease,
    Coherency,
    Complexity,
    adcc,
    average_drop,
    average_increase,
    coherency,
    complexity,
    explanation_images,
)
from sightline.metrics.fills import filled
from sightline.metrics.localization import (
    EnergyInMask,
    MIoU,
    PointingGame,
    energy_in_mask,
    foreground_iou,
    pointing_game,
)
from sightline.metrics.observation import Observation
from sightline.metrics.perturbation import (
    Deletion,
    Insertion,
    PerturbationMetric,
    area_under_curve,
    perturbation_curves,
)
from sightline.metrics.registry import METRICS, register
from sightline.metrics.scoring import Scorer

__all__ = [
    "ADCC",
    "METRICS",
    "Accuracy",
    "AverageDrop",
    "AverageIncrease",
    "Coherency",
    "Complexity",
    "Deletion",
    "EnergyInMask",
    "Insertion",
    "MIoU",
    "Observation",
    "PerImageMetric",
    "PerturbationMetric",
    "PointingGame",
    "Scorer",
    "WorstGroupAccuracy",
    "adcc",
    "area_under_curve",
    "average_drop",
    "average_increase",
    "coherency",
    "complexity",
    "correct",
    "energy_in_mask",
    "explanation_images",
    "filled",
    "foreground_iou",
    "group_accuracies",
    "names",
    "perturbation_curves",
    "pointing_game",
    "register",
    "worst_group_accuracy",
]


def names() -> dict[str, dict[str, Any]]:
    """Every metric's name, with its capabilities."""
    return METRICS.capabilities()
