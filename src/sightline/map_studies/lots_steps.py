"""The steps from an image to its LOTS map."""

import math
import string
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from matplotlib.figure import Figure
from pydantic import Field, model_validator
from torch import Tensor

from sightline._core.registry import Entry
from sightline.attributions.lots import LOTS, grey
from sightline.faithfulness.explanation_image import explanation_images
from sightline.reporting.overlay import blend
from sightline.studies.image_study import Images, Maker, OneImageStudy
from sightline.studies.study import KINDS, Done, check_labels
from sightline.studies.subject import Subject

WHY = {"converged": "converged", "zero gradient": "found no gradient", "iterations": "had no more"}
Step = Literal[
    "original", "adversarial", "original, grey", "adversarial, grey",
    "difference", "activation map", "explanation image", "heat map", "change",
]  # fmt: skip
STEPS: tuple[Step, ...] = get_args(Step)[:-1]
MAGNIFIED = 10  # factor by which a shown change is amplified (thesis, Figure 4.1)


@KINDS.register("lots_steps")
class LotsSteps(OneImageStudy):
    """What LOTS makes of one image, step by step.

    Attributes:
        options: of the explainer `lots`.
        steps: which steps are shown; a `change` is the difference of the colors, ten times as strong, around grey.
    """

    part: ClassVar[str] = "steps"

    kind: Literal["lots_steps"]
    options: dict[str, Any] = Field(default_factory=dict)
    steps: Annotated[list[Step], Field(min_length=1)] = Field(default_factory=lambda: [*STEPS])

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("steps", self.steps)
        if self.paper_values:
            raise ValueError("paper_values: the steps have no values that a paper prints")
        return self

    def maker(self) -> Maker:
        """Run LOTS, and keep what each step makes."""
        lots, unblurred = self._explainer(), self._explainer(blur=0)

        def make(subject: Subject, image: Tensor, path: str) -> tuple[Images, dict[str, Any]]:
            found = lots.synthesize(subject.model, image, input_spec=subject.input_spec)
            maps = lots.maps(image, found.images)
            images = {
                "original": image,
                "adversarial": found.images,
                "original, grey": grey(image)[:, None],
                "adversarial, grey": grey(found.images)[:, None],
                "difference": unblurred.maps(image, found.images)[:, None],
                "activation map": maps[:, None],
                "explanation image": explanation_images(image, maps),
                "heat map": blend(image, maps),
                "change": (MAGNIFIED * (found.images - image) + 128 / 255).clamp(0, 1),
            }
            values = {
                "image": path,
                "said": {
                    name: subject.say(images[name])[0]
                    for name in ("original", "adversarial", "explanation image")
                    if name in self.steps
                },
                "iterations": int(found.iterations[0]),
                "distance": float(found.distances[0]),
                "stopped": found.stopped[0],
                "largest_change": float((found.images - image).abs().max()),
            }
            return {name: images[name] for name in self.steps}, values

        return make

    def words(self, values: dict[str, Any]) -> str:
        """How far LOTS got."""
        return (
            f"; LOTS took {values['iterations']} iterations, and {WHY[values['stopped']]} at the distance "
            f"{values['distance']:.4g}. The largest change of a pixel is {255 * values['largest_change']:.1f}/255."
        )

    def figure_text(self) -> str:
        """Return the steps in words."""
        return ", ".join(self.steps)

    def figures(self, done: Done) -> dict[str, Figure]:
        """Lines of four images, lettered as in the thesis."""
        titles: dict[str, str] = {
            name: f"({letter}) {name}" for letter, name in zip(string.ascii_lowercase, self.steps)
        }
        figure, axes = self.draw(done[self.part], titles, math.ceil(len(titles) / 4))
        for empty in axes[len(titles) :]:
            empty.set_axis_off()
        return {"figure.png": figure}

    def _explainer(self, **changes: Any) -> LOTS:
        return Entry("lots", LOTS)(**{**self.options, **changes})
