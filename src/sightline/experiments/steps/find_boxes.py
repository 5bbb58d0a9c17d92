"""Boxes of the training images that nobody drew: LOST finds them with a self-supervised transformer."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from sightline._core.strict import name_or_mapping
from sightline.errors import SightlineError
from sightline.experiments.steps.base import STEPS, Step, StepContext
from sightline.localization.detectors import BOX_DETECTORS
from sightline.localization.writing import write_boxes
from sightline.runs.recipe_parts import Model
from sightline.studies.recipes import Keys
from sightline.studies.study import Part

FILE = "boxes.csv"


@STEPS.register("find_boxes")
class FindBoxes(Step):
    """Find boxes as `sightline boxes` does, in the folder of the step's label.

    Runs that use the step read the boxes with their data, and their guide takes its `region` from them. Without weights nothing
    is found, and the guide keeps the region that the recipe names.

    Attributes:
        label: what variants list in `uses`, and the name of the part.
        model: the self-supervised transformer, with its weights: a file, or `default` to download them; null finds no boxes.
        options: of LOST, such as `size`.
    """

    finds: ClassVar[str] = "boxes"
    label: Annotated[str, Field(pattern=r"^[\w .+-]+$")] = "boxes"
    model: Annotated[Model, BeforeValidator(name_or_mapping)]
    options: dict[str, Any] = Field(default_factory=dict)

    def prepare(self, context: StepContext) -> Callable[[], Part]:
        """Open the training images and load the model, so what is missing is reported before the first run."""
        if self.model.weights is None:
            return lambda: Part({})
        images = context.recipe.data.create()["train"]
        try:
            model, spec = self.model.load()
        except SightlineError as error:
            raise SightlineError(f"{error} (model.weights of the step {self.label!r})") from error

        def work() -> Part:
            detector = BOX_DETECTORS["lost"](model=model.to(context.device), input_spec=spec, **self.options)
            file = context.folder / self.label / FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            done = write_boxes(images, file, detector, progress=True)
            return Part({"images": done.images, "boxes": done.boxes, "corloc": done.corloc, "judged": done.judged})

        return work

    def keys(self, context: StepContext) -> Keys:
        """Return the keys of the boxes of the data, and of the guide that takes its region from them."""
        if self.model.weights is None:
            return {}
        return {"data.boxes": str(context.folder / self.label / FILE), "guide.region": "boxes"}

    def summary(self, part: Part) -> str:
        """How many boxes were found, and how good they are; "" without weights."""
        found = part.values
        if not found:
            return ""
        judged = f", CorLoc {found['corloc']:.3f} against the masks of {found['judged']}" if found["judged"] else ""
        return f"Boxes by LOST ({self.model.name}): {found['boxes']} in {found['images']} training images{judged}."
