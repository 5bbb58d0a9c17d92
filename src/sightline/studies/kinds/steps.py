"""The steps from an image to its LOTS map."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.figure import Figure
from pydantic import BeforeValidator, Field
from torch import Tensor

from sightline._core.registry import Entry
from sightline._core.strict import name_or_mapping
from sightline.explainers.lots import LOTS, grey
from sightline.metrics.explanation_image import explanation_images
from sightline.reporting.overlay import blend
from sightline.reporting.plots import draw_image, new_figure
from sightline.studies.image_selection import ImageChoice, ImageSelection
from sightline.studies.study import KINDS, AnyModel, Done, Part, Study
from sightline.studies.subject import load_subject
from sightline.studies.tables import caption, to_bytes
from sightline.training.recipe import Data

PART = "steps"
WHY = {"converged": "converged", "zero gradient": "found no gradient", "iterations": "had no more"}
STEPS = (
    "original", "adversarial", "original, grey", "adversarial, grey",
    "difference", "activation map", "explanation image", "heat map",
)  # fmt: skip


@KINDS.register("steps")
class Steps(Study):
    """What LOTS makes of one image, step by step.

    Attributes:
        data: where the image comes from; needed unless `image` names a file.
        image: its place, its class (the first one of it) or its file; null draws one.
        model: whose features are moved.
        options: of the explainer `lots`.
    """

    kind: Literal["steps"]
    data: Annotated[Data | None, BeforeValidator(name_or_mapping)] = None
    image: ImageChoice | None = None
    model: AnyModel
    options: dict[str, Any] = Field(default_factory=dict)

    def parts(self) -> list[str]:
        """All steps at once."""
        return [PART]

    def scaled(self, scale: float) -> Self:
        """The same: there is one image."""
        return self

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read the image and load the model."""
        lots = self._explainer()
        selection = ImageSelection(self.data, self.called)
        place = selection.draw(1, self.seed)[0] if self.image is None else selection.find(self.image)
        subject = load_subject(self.model, device, self.seed)
        image = selection.read([place], subject.spec.size[0]).to(device)

        def work(part: str) -> Part:
            found = lots.synthesize(subject.model, image, input_spec=subject.spec)
            maps = lots.maps(image, found.images)
            pictures = {
                "original": image,
                "adversarial": found.images,
                "original, grey": grey(image)[:, None],
                "adversarial, grey": grey(found.images)[:, None],
                "difference": self._explainer(blur=0).maps(image, found.images)[:, None],
                "activation map": maps[:, None],
                "explanation image": explanation_images(image, maps),
                "heat map": blend(image, maps),
            }
            values = {
                "image": selection.path(place),
                "said": {
                    name: subject.say(pictures[name])[0] for name in ("original", "adversarial", "explanation image")
                },
                "iterations": int(found.iterations[0]),
                "distance": float(found.distances[0]),
                "stopped": found.stopped[0],
                "largest_change": float((found.images - image).abs().max()),
            }
            return Part(values, {name: to_bytes(picture[0]) for name, picture in pictures.items()})

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """One row: how far LOTS got."""
        return [{key: value for key, value in part.values.items() if key != "said"} for part in done.values()]

    def summary(self, done: Done) -> str:
        """The steps, and how far LOTS got."""
        if PART not in done:
            return ""
        values = done[PART].values
        return (
            f"![{', '.join(STEPS)}](figure.png)\n\n"
            f"`{self.model.name}` (weights: {self.model.weights or 'random'}); LOTS took {values['iterations']} "
            f"iterations, and {WHY[values['stopped']]} at the distance {values['distance']:.4g}. "
            f"The largest change of a pixel is {255 * values['largest_change']:.1f}/255."
        )

    def figures(self, done: Done) -> dict[str, Figure]:
        """Two lines of four pictures, lettered as the thesis has them."""
        part = done[PART]
        figure = new_figure(2, 4)
        for letter, name, axes in zip(string.ascii_lowercase, STEPS, figure.subplots(2, 4).flat):
            picture: Tensor = part.tensors[name].float() / 255
            draw_image(axes, picture)
            axes.set_title(f"({letter}) {name}", fontsize=9)
            if name in part.values["said"]:
                axes.set_xlabel(caption(*part.values["said"][name]), fontsize=7)
        return {"figure.png": figure}

    def _explainer(self, **changes: Any) -> LOTS:
        return Entry("lots", LOTS)(**{**self.options, **changes})
