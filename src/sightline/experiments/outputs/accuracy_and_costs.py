"""Accuracy with its interval, and what each training costs; differences between chosen variants."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from pydantic import Field

from sightline.evaluation import evaluate_model
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.reporting.markdown import markdown
from sightline.runs import Run, load_run
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread


@OUTPUTS.register("accuracy_and_costs")
class AccuracyAndCosts(Output):
    """Accuracy, parameters, epochs and seconds of every training, also of the first model that others begin with.

    Attributes:
        split: whose images measure the accuracy.
        differences: row -> the rows that it is compared with, seed by seed.
    """

    split: str = "test"
    differences: dict[str, list[str]] = Field(default_factory=dict)

    def check(self, columns: Sequence[str], rows: Sequence[str]) -> None:
        """Only rows of the table can be compared."""
        named = {*self.differences, *(other for others in self.differences.values() for other in others)}
        if unknown := sorted(named - set(rows)):
            raise ValueError(f"differences: there is no row {unknown[0]!r}; name labels of the study's rows")

    def measure(self, run: Run, device: torch.device) -> Part:
        """Measure the accuracy, and read what the training took."""
        loaded = load_run(run, device)
        model, batches = loaded.model, loaded.loader(loaded.splits[self.split], 250)
        found = evaluate_model(model, batches, [], ["accuracy"], input_spec=loaded.input_spec).results[0]
        rows = run.rows
        values: dict[str, Any] = {
            "accuracy": found.value, "low": found.low, "high": found.high, "n": found.n, "epochs": len(rows),
            "parameters": sum(parameter.numel() for parameter in model.parameters()), "seconds": float(rows[-1]["seconds"]),
        }  # fmt: skip
        if (watch := loaded.recipe.save_best) is not None:
            pick = max if watch.mode == "max" else min
            best = pick(rows, key=lambda each: float(each[watch.metric] or "nan"))
            values |= {"selected_epoch": int(best["epoch"]), watch.metric: float(best[watch.metric])}
        return Part(values)

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per training."""
        trained = {**runs.made, **runs.done}
        return [{"training": name, **part.values} for name, part in trained.items() if "accuracy" in part.values]

    def summary(self, runs: FinishedRuns) -> str:
        """Mean and spread of the accuracy with the costs, and the differences between rows."""
        lines = [
            [f"The {name} model", f"{100 * part.values['accuracy']:.2f}", "", "1", *_costs([part.values])]
            for name, part in runs.made.items()
            if "accuracy" in part.values
        ]
        for row in runs.rows:
            found = [part.values for part in runs.of(row).values()]
            paper = runs.paper_values.get(row, {}).get(f"{self.split}/accuracy", ())
            printed = paper if isinstance(paper, tuple) else (paper,)
            accuracy = mean_and_spread([100 * values["accuracy"] for values in found], form=".2f")
            lines.append(
                [row, accuracy, " ± ".join(f"{100 * value:.2f}" for value in printed), str(len(found)), *_costs(found)]
            )
        header = ["Training", "Accuracy", "The paper's", "Seeds", "Parameters", "Epochs", "Seconds a training"]
        intro = f"Accuracy in per cent on the split {self.split!r}: mean ± standard deviation over seeds."
        sections = [intro, markdown(header, lines)]
        if differences := self._differences(runs):
            sections.append("Differences in percentage points, seed by seed: mean ± standard deviation.")
            sections.append(markdown(["Difference", "Points", "Seeds above zero"], differences))
        return "\n\n".join(sections)

    def _differences(self, runs: FinishedRuns) -> list[list[str]]:
        found = {row: {seed: part.values["accuracy"] for seed, part in runs.of(row).items()} for row in runs.rows}
        lines = []
        for row, others in self.differences.items():
            for other in others:
                points = [
                    100 * (value - found[other][seed]) for seed, value in found[row].items() if seed in found[other]
                ]
                if points:
                    above = f"{sum(each > 0 for each in points)} of {len(points)}"
                    lines.append([f"{row} − {other}", mean_and_spread(points, form="+.2f"), above])
        return lines


def _costs(found: list[dict[str, Any]]) -> list[str]:
    """Parameters, epochs and seconds of trainings."""
    if not found:
        return ["", "", ""]
    return [f"{found[0]['parameters']:,}", f"{found[0]['epochs']}", f"{fmean(each['seconds'] for each in found):.0f}"]
