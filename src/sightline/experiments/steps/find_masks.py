"""Masks of the training images that nobody drew: they are found by the maps of another model."""

from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from sightline._core.strict import Real, name_or_mapping
from sightline.experiments.steps.base import STEPS, Step, StepContext
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.prompts import Prompter, find_segmenter
from sightline.localization.writing import write_masks
from sightline.runs.recipe_parts import Model
from sightline.studies.recipes import Keys
from sightline.studies.study import Part


@STEPS.register("find_masks")
class FindMasks(Step):
    """Find masks as `sightline masks` does, in the folder of the step's label.

    Runs that use the step read their data through `found_masks`: training sees none of the data's own masks, but the metrics
    do.

    Attributes:
        model: whose maps prompt, with its weights; null for `layer` chooses it by the family.
        method: the explainer that makes the maps.
        threshold: points are the maps' maxima above this.
        distance: how far apart they are, as a share of the shorter side.
        segmenter: `grabcut`, or `package.module:function`.
    """

    finds: ClassVar[str] = "masks"
    label: str = "masks"
    model: Annotated[Model, BeforeValidator(name_or_mapping)]
    method: str = "gradcam"
    threshold: Annotated[Real, Field(ge=0, lt=1)] = 0.5
    distance: Annotated[Real, Field(gt=0, le=1)] = 0.1
    segmenter: str = "grabcut"

    def prepare(self, context: StepContext) -> Callable[[], Part]:
        """Open the training images and load the model, so what is missing is reported before the first run."""
        images = context.recipe.data.create()["train"]
        model, spec = self.model.load()
        segmenter = find_segmenter(self.segmenter)

        def work() -> Part:
            maps = ExplainedMaps(model.to(context.device), spec, self.method, self.model.layer)
            prompter = Prompter(maps, threshold=self.threshold, distance=self.distance)
            folder = context.folder / self.label
            done = write_masks(images, folder, prompter, segmenter, name=self.segmenter, progress=True)
            return Part({"images": done.images, "masks": done.masks, "iou": done.iou, "judged": done.judged})

        return work

    def keys(self, context: StepContext) -> Keys:
        """Return the keys of the dataset with the found masks."""
        source = context.recipe.data.model_dump(mode="json")
        return {"data": {"name": "found_masks", "source": source, "masks": str(context.folder / self.label)}}

    def summary(self, part: Part) -> str:
        """How many masks were found, and how good they are."""
        found = part.values
        judged = f", mean IoU {found['iou']:.3f} with the true masks of {found['judged']}" if found["judged"] else ""
        return (
            f"Masks by {self.segmenter} from {self.method} of {self.model.name}: {found['masks']} for {found['images']} "
            f"training images{judged}."
        )
