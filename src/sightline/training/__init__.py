"""Training by recipe, on Lightning Fabric."""

from sightline.training.launch import train
from sightline.training.recipe import Recipe, read_recipe, shipped_recipes
from sightline.training.run import Run

__all__ = ["Recipe", "Run", "read_recipe", "shipped_recipes", "train"]
