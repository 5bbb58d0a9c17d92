"""Training by recipe, on Lightning Fabric."""

from sightline.training.launch import train
from sightline.training.load_run import LoadedRun, load_run
from sightline.training.recipe import Recipe, read_recipe, shipped_recipes
from sightline.training.run import Run

__all__ = ["LoadedRun", "Recipe", "Run", "load_run", "read_recipe", "shipped_recipes", "train"]
