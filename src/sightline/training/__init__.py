"""Training by recipe, on Lightning Fabric."""

from sightline.training.launch import train

__all__ = ["train"]
