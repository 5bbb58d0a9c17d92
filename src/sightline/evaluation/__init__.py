"""Evaluation: a model or a run over splits, explainers and metrics."""

from sightline.evaluation.measuring import DEFAULT_EXPLAINERS, DEFAULT_METRICS, evaluate_model
from sightline.evaluation.result import Curve, Evaluation, Result, SavedImages
from sightline.evaluation.run import evaluate

__all__ = [
    "DEFAULT_EXPLAINERS",
    "DEFAULT_METRICS",
    "Curve",
    "Evaluation",
    "Result",
    "SavedImages",
    "evaluate",
    "evaluate_model",
]
