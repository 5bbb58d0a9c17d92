"""What a training run is: its recipe, its folder, and the model and data that the folder leads to."""

from sightline.runs.load_run import LoadedRun, load_run
from sightline.runs.recipe import Recipe, read_recipe, shipped_recipes
from sightline.runs.run import Run

__all__ = ["LoadedRun", "Recipe", "Run", "load_run", "read_recipe", "shipped_recipes"]
