"""Models by name, each with the input that it expects."""

from sightline.models.loading import load_model
from sightline.models.registry import MODELS

__all__ = ["MODELS", "load_model"]
