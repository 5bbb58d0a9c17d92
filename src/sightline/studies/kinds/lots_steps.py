"""The steps from an image to its LOTS map."""

import string
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from sightline._core.registry import Entry
from sightline.explainers.lots import LOTS, grey
from sightline.metrics.explanation_image import explanation_images
from sightline.reporting.overlay import blend
from sightline.studies.image_study import Images, Maker, OneImageStudy
from sightline.studies.study import KINDS, Done
from sightline.studies.subject import Subject

WHY = {"converged": "converged", "zero gradient": "found no gradient", "iterations": "had no more"}
STEPS = (
    "original", "adversarial", "original, grey", "adversarial, grey",
    "difference", "activation map", "explanation image", "heat map",
)  # fmt: skip


@KINDS.register("lots_steps")
class LotsSteps(OneImageStudy):
    """What LOTS makes of one image, step by step.

    Attributes:
        options: of the explainer `lots`.
    """

    part: ClassVar[str] = "steps"

    kind: Literal["lots_steps"]
    options: dict[str, Any] = Field(default_factory=dict)

    def maker(self) -> Maker:
        """Run LOTS, and keep what each step makes."""
        lots, unblurred = self._explainer(), self._explainer(blur=0)

        def make(subject: Subject, image: Tensor, path: str) -> tuple[Images, dict[str, Any]]:
            found = lots.synthesize(subject.model, image, input_spec=subject.spec)
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
            }
            values = {
                "image": path,
                "said": {
                    name: subject.say(images[name])[0] for name in ("original", "adversarial", "explanation image")
                },
                "iterations": int(found.iterations[0]),
                "distance": float(found.distances[0]),
                "stopped": found.stopped[0],
                "largest_change": float((found.images - image).abs().max()),
            }
            return images, values

        return make

    def words(self, values: dict[str, Any]) -> str:
        """How far LOTS got."""
        return (
            f"; LOTS took {values['iterations']} iterations, and {WHY[values['stopped']]} at the distance "
            f"{values['distance']:.4g}. The largest change of a pixel is {255 * values['largest_change']:.1f}/255."
        )

    def figure_text(self) -> str:
        """The steps."""
        return ", ".join(STEPS)

    def figures(self, done: Done) -> dict[str, Figure]:
        """Two lines of four images, lettered as in the thesis."""
        titles = {name: f"({letter}) {name}" for letter, name in zip(string.ascii_lowercase, STEPS)}
        return {"figure.png": self.draw(done[self.part], titles, 2)[0]}

    def _explainer(self, **changes: Any) -> LOTS:
        return Entry("lots", LOTS)(**{**self.options, **changes})
