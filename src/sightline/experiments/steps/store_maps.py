"""Maps of the training images by an explainer of a first model, kept for runs that learn from them."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from sightline.data.map_store import MapStore
from sightline.experiments.steps.base import STEPS, Step, StepContext
from sightline.explainers import create_explainer
from sightline.explainers.maps import compute_maps
from sightline.runs import load_run
from sightline.studies.recipes import Keys
from sightline.studies.study import Part


@STEPS.register("store_maps")
class StoreMaps(Step):
    """Explain the training images for their labels, and keep the maps in `maps/<label>` of the study's folder.

    Attributes:
        of: the label of the step that trains the model.
        explainer: name of the explainer.
        options: of the explainer.
    """

    of: str = "first"
    explainer: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """The step that trains the model, and those in `uses`."""
        return [self.of, *self.uses]

    def check(self, before: Mapping[str, Step], keys: Keys) -> None:
        """Check that the model is trained before, and that the explainer exists."""
        if self.of not in before:
            raise ValueError(f"steps: {self.label} explains the model {self.of!r}, which no earlier step trains")
        create_explainer(self.explainer, **self.options)

    def prepare(self, context: StepContext) -> Callable[[], Part]:
        """Compute the maps, or the rest of them."""
        return lambda: self._work(context)

    def keys(self, context: StepContext) -> Keys:
        """Return the keys of the map store."""
        return {"maps": str(context.folder / "maps" / self.label)}

    def summary(self, part: Part) -> str:
        """How many maps were made, and in what time."""
        return (
            f"Maps `{self.label}` ({self.explainer}) of {part.values['maps']} training images: {part.values['made']} of them "
            f"made by this part, in {part.values['seconds']:.0f} s; the others existed already."
        )

    def _work(self, context: StepContext) -> Part:
        first = load_run(context.run(self.of), context.device)
        path, images = context.folder / "maps" / self.label, first.splits["train"]
        before = int(MapStore(path).finished.sum()) if (path / "zarr.json").is_file() else 0
        start = time.perf_counter()
        compute_maps(
            first.model, images, path, self.explainer, options=self.options, targets="label", layer=first.layer,
            input_spec=first.input_spec, dtype="float16", progress=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return Part({"maps": len(images), "made": len(images) - before, "seconds": seconds})
