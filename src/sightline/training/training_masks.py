"""The masks that training sees: those of the data set, fewer or poorer ones, or found ones."""

from sightline.data.dataset import ImageDataset
from sightline.datasets.derived.mask_quality import DegradedMasks
from sightline.localization.found_masks import CutBoxes, FoundMasks
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.prompts import Prompter
from sightline.runs.recipe import Recipe


def remasked(images: ImageDataset, recipe: Recipe) -> ImageDataset:
    """Return the training images with the masks that `mask_quality` and `mask_fraction` ask for."""
    quality = recipe.mask_quality
    if quality is None:
        return images if recipe.mask_fraction == 1 else _fewer(images, recipe)
    if quality.name == "found":
        images = FoundMasks(images, *_prompts(recipe))
    elif quality.name == "box_cut":
        images = CutBoxes(images)
    else:
        options = quality.model_dump(exclude={"name"})
        return DegradedMasks(images, fraction=recipe.mask_fraction, quality=quality.name, seed=recipe.seed, **options)
    return images if recipe.mask_fraction == 1 else _fewer(images, recipe)


def _fewer(images: ImageDataset, recipe: Recipe) -> ImageDataset:
    return DegradedMasks(images, fraction=recipe.mask_fraction, seed=recipe.seed)


def _prompts(recipe: Recipe) -> tuple[Prompter, object]:
    """Return what tells where objects are: the Grad-CAM of the model as its weights are, or the center without weights."""
    if recipe.model.weights is None:
        prompter = Prompter(center=True)
    else:
        model, spec = recipe.model.load(size=recipe.image_size)
        prompter = Prompter(ExplainedMaps(model.eval(), spec, "gradcam", recipe.model.layer))
    return prompter, prompter.facts
