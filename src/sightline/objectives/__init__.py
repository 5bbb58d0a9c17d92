"""The objective: a model with its guides, what a guide is, and the check before training."""

from sightline.objectives.check import check_model
from sightline.objectives.objective import Objective

__all__ = ["Objective", "check_model"]
