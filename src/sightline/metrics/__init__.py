"""Metrics: from maps, images and a model to a number.

Each is a pure function that gives every image its value, and a thin `torchmetrics.Metric` that averages them.

Examples:
    >>> maps, masks = torch.tensor([[[0.9, 0.6], [0.1, 0.0]]]), torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    >>> sl.metrics.foreground_iou(maps, masks)
    tensor([0.5000])
    >>> metric = sl.metrics.MIoU()
    >>> metric.update(maps, masks)
    >>> metric.compute()
    tensor(0.5000)
"""

from typing import Any

from sightline._core.fills import filled
from sightline.attacks.consistency import disturbed_images, explanation_consistency
from sightline.faithfulness.explanation_image import (
    ADCC,
    ARCC,
    AverageDrop,
    AverageIncrease,
    Coherency,
    Complexity,
    adcc,
    arcc,
    average_drop,
    average_increase,
    coherency,
    complexity,
    explanation_images,
)
from sightline.faithfulness.perturbation import (
    Deletion,
    Insertion,
    PerturbationMetric,
    area_under_curve,
    perturbation_curves,
)
from sightline.faithfulness.road import ROAD, imputed
from sightline.faithfulness.sanity import SanityCheck, sanity_check
from sightline.faithfulness.similarity import pearson, spearman
from sightline.faithfulness.squares import LeRF, LeRFMinusMoRF, MoRF, square_curves
from sightline.faithfulness.stability import ViewStability, view_stability
from sightline.metric_base.base import CurveMetric, MapMetric, PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import METRICS, register
from sightline.metric_base.scoring import Scorer
from sightline.metrics.accuracy import Accuracy, WorstGroupAccuracy, correct, group_accuracies, worst_group_accuracy
from sightline.metrics.avoided import (
    EnergyInAvoid,
    MarkPastedAccuracy,
    MarkRemovedAccuracy,
    MarkSwappedAccuracy,
    changed_marks,
    energy_in_avoid,
)
from sightline.metrics.backgrounds import (
    BGGap,
    BlackedBackgroundAccuracy,
    MixedNextAccuracy,
    MixedRandAccuracy,
    MixedSameAccuracy,
    NoForegroundAccuracy,
    OnlyForegroundAccuracy,
    TiledBackgroundAccuracy,
)
from sightline.metrics.boxes import (
    BoxLocalization,
    EnergyInBox,
    PointingGameInBox,
    box_localization,
    energy_in_box,
    map_boxes,
    pointing_game_in_box,
)
from sightline.metrics.calibration import ECE, expected_calibration_error
from sightline.metrics.consistency import ExplanationConsistency
from sightline.metrics.corloc import CorLoc, corloc
from sightline.metrics.localization import (
    EnergyInMask,
    MIoU,
    PointingGame,
    energy_in_mask,
    foreground_iou,
    pointing_game,
)
from sightline.metrics.noise import (
    RFS,
    BackgroundNoiseAccuracy,
    ForegroundNoiseAccuracy,
    NormalizedRFS,
    noised,
    normalized_rfs,
)
from sightline.metrics.parts import PartInterpretability, part_iou
from sightline.metrics.robustness import FGSMAccuracy, fgsm_hits

__all__ = [
    "ADCC",
    "ARCC",
    "ECE",
    "METRICS",
    "RFS",
    "ROAD",
    "Accuracy",
    "AverageDrop",
    "AverageIncrease",
    "BGGap",
    "BackgroundNoiseAccuracy",
    "BlackedBackgroundAccuracy",
    "BoxLocalization",
    "Coherency",
    "Complexity",
    "CorLoc",
    "CurveMetric",
    "Deletion",
    "EnergyInAvoid",
    "EnergyInBox",
    "EnergyInMask",
    "ExplanationConsistency",
    "FGSMAccuracy",
    "ForegroundNoiseAccuracy",
    "Insertion",
    "LeRF",
    "LeRFMinusMoRF",
    "MIoU",
    "MapMetric",
    "MarkPastedAccuracy",
    "MarkRemovedAccuracy",
    "MarkSwappedAccuracy",
    "MixedNextAccuracy",
    "MixedRandAccuracy",
    "MixedSameAccuracy",
    "MoRF",
    "NoForegroundAccuracy",
    "NormalizedRFS",
    "Observation",
    "OnlyForegroundAccuracy",
    "PartInterpretability",
    "PerImageMetric",
    "PerturbationMetric",
    "PointingGame",
    "PointingGameInBox",
    "SanityCheck",
    "Scorer",
    "TiledBackgroundAccuracy",
    "ViewStability",
    "WorstGroupAccuracy",
    "adcc",
    "arcc",
    "area_under_curve",
    "average_drop",
    "average_increase",
    "box_localization",
    "changed_marks",
    "coherency",
    "complexity",
    "corloc",
    "correct",
    "disturbed_images",
    "energy_in_avoid",
    "energy_in_box",
    "energy_in_mask",
    "expected_calibration_error",
    "explanation_consistency",
    "explanation_images",
    "fgsm_hits",
    "filled",
    "foreground_iou",
    "group_accuracies",
    "imputed",
    "list_metrics",
    "map_boxes",
    "noised",
    "normalized_rfs",
    "part_iou",
    "pearson",
    "perturbation_curves",
    "pointing_game",
    "pointing_game_in_box",
    "register",
    "sanity_check",
    "spearman",
    "square_curves",
    "view_stability",
    "worst_group_accuracy",
]


def list_metrics() -> dict[str, dict[str, Any]]:
    """Return every metric's name with its capabilities."""
    return METRICS.capabilities()
