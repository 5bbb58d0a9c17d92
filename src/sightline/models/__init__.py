"""Models by name, each with the input that it expects."""

from sightline.models.loading import head_parameters, load_model
from sightline.models.registry import MODELS

__all__ = ["MODELS", "head_parameters", "load_model"]
