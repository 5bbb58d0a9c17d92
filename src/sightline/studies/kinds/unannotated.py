"""Trained runs whose guides learn from masks that nobody drew: they are found by the maps of a model that does not cheat."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator

from sightline._core.strict import Real, Section, named
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.prompts import Prompter, find_segmenter
from sightline.localization.writing import write_masks
from sightline.models import load_model
from sightline.studies.kinds.training_runs import Keys, TrainingRuns, overrides
from sightline.studies.study import KINDS, Done, Part
from sightline.training import read_recipe
from sightline.training.recipe import Model

MASKS = "masks"


class Prompts(Section):
    """What `sightline masks` gets.

    Attributes:
        model: whose maps prompt, with its weights; null for `layer` chooses it by the family.
        method: the explainer that makes the maps.
        threshold: points are the maps' maxima above this.
        distance: how far apart they are, as a share of the shorter side.
        segmenter: `grabcut`, or `package.module:function`.
    """

    model: Annotated[Model, BeforeValidator(named)]
    method: str = "gradcam"
    threshold: Annotated[Real, Field(ge=0, lt=1)] = 0.5
    distance: Annotated[Real, Field(gt=0, le=1)] = 0.1
    segmenter: str = "grabcut"


@KINDS.register("unannotated")
class Unannotated(TrainingRuns):
    """Variants x seeds as of the kind `training_runs`, with masks that are found once for the training images of all of them.

    The first part makes the masks, in `masks/` in the study's folder; every run then reads its data through `found_masks`. So
    training sees none of the data's own masks, but the metrics do.

    Attributes:
        prompts: what the masks are made by.
    """

    kind: Literal["unannotated"]  # type: ignore[assignment]
    prompts: Prompts

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        changed = [key for variant in self.rows for key in variant.keys if key.partition(".")[0] == "data"]
        if changed:
            raise ValueError(
                f"a variant changes {changed[0]!r}; the masks are found once, for the same data in all variants"
            )
        return self

    def parts(self) -> list[str]:
        """The masks, and then the runs."""
        return [MASKS, *super().parts()]

    def is_complete(self, name: str, part: Part) -> bool:
        """As of `training_runs`; the masks have no columns."""
        return name == MASKS or super().is_complete(name, part)

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Open the training images and load the model, so that what is missing is met before the first run."""
        data = read_recipe(self.recipe, overrides(self.keys)).data
        images = data.create()["train"]
        model, spec = load_model(self.prompts.model.name, self.prompts.model.weights)
        segmenter = find_segmenter(self.prompts.segmenter)
        found: Keys = {
            "data": {"name": "found_masks", "source": data.model_dump(mode="json"), "masks": str(folder / MASKS)}
        }
        # Keys of the data itself are in `found` already.
        others = {key: value for key, value in self.keys.items() if key.partition(".")[0] != "data"}
        train = TrainingRuns.prepare(self.model_copy(update={"keys": found | others}), device, folder)

        def work(part: str) -> Part:
            if part != MASKS:
                return train(part)
            maps = ExplainedMaps(model.to(device), spec, self.prompts.method, self.prompts.model.layer)
            prompter = Prompter(maps, threshold=self.prompts.threshold, distance=self.prompts.distance)
            done = write_masks(images, folder / MASKS, prompter, segmenter, name=self.prompts.segmenter, progress=True)
            return Part({"images": done.images, "masks": done.masks, "iou": done.iou, "judged": done.judged})

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """As of `training_runs`."""
        return super().table(_runs(done))

    def summary(self, done: Done) -> str:
        """How good the masks are, and then as of `training_runs`."""
        text = super().summary(_runs(done))
        if MASKS not in done:
            return text
        found = done[MASKS].values
        judged = f", mean IoU {found['iou']:.3f} with the true masks of {found['judged']}" if found["judged"] else ""
        model, method = self.prompts.model.name, self.prompts.method
        return (
            f"Masks by {self.prompts.segmenter} from {method} of {model}: {found['masks']} for {found['images']} training "
            f"images{judged}.\n\n{text}"
        )

    def figures(self, done: Done) -> dict[str, Any]:
        """As of `training_runs`."""
        return super().figures(_runs(done))


def _runs(done: Done) -> Done:
    return {name: part for name, part in done.items() if name != MASKS}
