"""Figures that training logged, in the last epoch of every run."""

import math
from typing import Annotated, Any

import torch
from pydantic import Field

from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.reporting.markdown import markdown
from sightline.runs import Run
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread


@OUTPUTS.register("logged")
class Logged(Output):
    """Figures of a run's metrics.csv, of its last epoch; a run that did not log one has none.

    Attributes:
        names: The columns of metrics.csv, such as `train/weights/median`.
    """

    names: Annotated[list[str], Field(min_length=1)]

    def measure(self, run: Run, device: torch.device) -> Part:
        """Read the last row of the log."""
        last = run.rows[-1]
        found = {name: float(last[name]) for name in self.names if last.get(name) not in (None, "")}
        return Part({"logged": {name: value for name, value in found.items() if not math.isnan(value)}})

    def is_complete(self, part: Part) -> bool:
        """Return whether the log was read."""
        return "logged" in part.values

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per variant, seed and name."""
        return [
            {"variant": row, "seed": int(seed), "column": name, "value": value}
            for row, seed, part in runs
            for name, value in part.values["logged"].items()
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Mean and spread over seeds of the variants that logged something."""
        rows = []
        for row in runs.rows:
            logged = [part.values["logged"] for part in runs.of(row).values()]
            cells = [mean_and_spread([each[name] for each in logged if name in each]) for name in self.names]
            if any(logged):
                rows.append([row, *cells])
        return "\n\n".join(
            [
                "Figures that training logged in its last epoch: mean ± standard deviation over seeds.",
                markdown(["Variant", *(f"`{name}`" for name in self.names)], rows),
            ]
        )
