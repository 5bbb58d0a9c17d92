"""Sightline's own models, named `sightline/<name>`; all others come from timm and torchvision."""

from torch import nn

from sightline._core.registry import Registry

MODELS: Registry[nn.Module] = Registry("model", ("sightline.models.small_networks",))
"""Factories take `classes` and have the capability `size`, the side in pixels that the model is meant for."""
