"""What a study of trained runs measures and draws, in addition to its columns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from matplotlib.figure import Figure
from pydantic import SerializeAsAny

from sightline._core.registry import Registry
from sightline._core.strict import StrictDocument, registered
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.runs import Run
from sightline.runs.run import EpochEnd
from sightline.studies.study import Part


class Output(StrictDocument, ABC):
    """Something that is measured of every run and shown in the report.

    An output is a subclass, registered under the `name` that YAML gives in the list `outputs`.

    Attributes:
        name: The kind of output.
    """

    noun: ClassVar[str] = "output"

    name: str

    def check(self, columns: Sequence[str], rows: Sequence[str]) -> None:
        """Raise ValueError if the columns or rows of the study lack what the output needs."""

    def watch(self, run: Run) -> EpochEnd | None:
        """Return what is called after every epoch of a run that begins or resumes; None = nothing."""
        return None

    def measure(self, run: Run, device: torch.device) -> Part:
        """Measure a finished run; the values of all outputs become one part."""
        return Part({})

    def is_complete(self, part: Part) -> bool:
        """Return whether a finished part has all values that the output asks for."""
        return True

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return the output's rows of table.csv."""
        return []

    @abstractmethod
    def summary(self, runs: FinishedRuns) -> str:
        """Return the output's section of the report, in Markdown."""

    def figures(self, runs: FinishedRuns) -> dict[str, Figure]:
        """Return figures by file name; all runs are finished."""
        return {}


OUTPUTS: Registry[Output] = Registry(
    "study output",
    modules=("sightline.experiments.outputs",),
)


AnyOutput = Annotated[SerializeAsAny[Output], registered(OUTPUTS, Output)]
