"""What a study of trained runs makes once, before the runs that use it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field, SerializeAsAny

from sightline._core.registry import Registry
from sightline._core.strict import StrictDocument, registered
from sightline.runs import Recipe, Run
from sightline.studies.recipes import Keys
from sightline.studies.study import Part


@dataclass(frozen=True)
class StepContext:
    """What a step works with.

    Attributes:
        recipe: the recipe that all runs share, those of one combination of the grid.
        folder: of the study, or in it that of the combination.
        device: where models run.
        train: trains and measures a run, by its name and the recipe keys that it changes.
        steps: the steps that are done, by label.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    train: Callable[[str, Keys], Part]
    steps: Mapping[str, "Step"] = field(default_factory=dict)

    def keys(self, labels: Iterable[str]) -> Keys:
        """Return the recipe keys that let a run use what some steps made; a step that is left out has none."""
        found: Keys = {}
        for label in labels:
            found |= self.steps[label].keys(self) if label in self.steps else {}
        return found

    def run(self, name: str) -> Run:
        """Return the run of a step that trains."""
        return Run(self.folder / "runs" / name)


class Step(StrictDocument, ABC):
    """Something that is made once, as one part of the study's work.

    A step is a subclass, registered under the `name` that YAML gives in the list `steps`.

    Attributes:
        name: The kind of step.
        label: what variants list in `uses`, and the name of the part.
        uses: the earlier steps whose results it uses, by label.
    """

    noun: ClassVar[str] = "step"
    finds: ClassVar[str] = ""  # what is found in the training images, which no variant may then change

    name: str
    label: Annotated[str, Field(pattern=r"^[\w .+-]+$")]
    uses: list[str] = Field(default_factory=list)

    @property
    def needs(self) -> list[str]:
        """The labels of the earlier steps without whose results there is nothing to do."""
        return self.uses

    def check(self, before: Mapping[str, "Step"], keys: Keys) -> None:
        """Raise ValueError if the step lacks an earlier one, or if keys of a variant contradict it.

        Args:
            before: the steps that come before this one, by label.
            keys: the recipe keys of all variants that use the step.
        """
        if self.finds and (changed := [key for key in keys if key.partition(".")[0] == "data"]):
            raise ValueError(
                f"a variant changes {changed[0]!r}; the {self.finds} are found once, for the same data in all variants"
            )

    @abstractmethod
    def prepare(self, context: StepContext) -> Callable[[], Part]:
        """Load what the work needs, and return what does it."""

    @abstractmethod
    def keys(self, context: StepContext) -> Keys:
        """Return the recipe keys that let a run use what the step made."""

    def summary(self, part: Part) -> str:
        """Return a paragraph on what the step made; "" = nothing."""
        return ""


STEPS: Registry[Step] = Registry("study step", modules=("sightline.experiments.steps",))

AnyStep = Annotated[SerializeAsAny[Step], registered(STEPS, Step)]
