"""Models by name, each with the input that it expects."""

from sightline.models.loading import load_model
from sightline.models.opening import OpenedModel, open_model
from sightline.models.registry import MODELS

__all__ = ["MODELS", "OpenedModel", "load_model", "open_model"]
