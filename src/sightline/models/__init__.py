"""Models by name, each with the input that it expects."""

from sightline.models.loading import load_model
from sightline.models.opening import OpenedModel, open_model
from sightline.models.registry import MODELS
from sightline.models.zero_shot import ZeroShotClassifier, zero_shot_classifier

__all__ = ["MODELS", "OpenedModel", "ZeroShotClassifier", "load_model", "open_model", "zero_shot_classifier"]
