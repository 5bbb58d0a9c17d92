"""The table of variants x columns, which every study of trained runs with columns has."""

import math
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure

from sightline.experiments.columns import Column, evaluate_columns, heading
from sightline.experiments.outputs.base import Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import new_axes, tidy
from sightline.runs import Run
from sightline.studies.study import Part
from sightline.studies.tables import in_brackets, mean_and_spread


class ColumnTable(Output):
    """Mean and standard deviation over seeds of every column, with the paper's values.

    Attributes:
        columns: `split/metric`, or `split/metric@explainer`.
    """

    name: str = "columns"
    columns: list[Column]

    def measure(self, run: Run, device: torch.device) -> Part:
        """Evaluate a run for the columns."""
        return Part({"columns": self.columns, "figures": evaluate_columns(run, self.columns, device)})

    def is_complete(self, part: Part) -> bool:
        """Return whether the run was evaluated for every column."""
        return set(self.columns) <= set(part.values["columns"])

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per variant, seed and column, including columns that the report does not show."""
        return [
            {"variant": row, "seed": int(seed), "column": column, **value}
            for row, seed, part in runs
            for column, value in part.values["figures"].items()
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Variants x columns, and the significant differences from the first variant."""
        sizes = {row: _sizes(runs, row) for row in runs.rows}
        known = {size for size in sizes.values() if size}
        header = ["Variant", "Seeds", *(heading(column) for column in self.columns), "Seconds a run"]
        rows = []
        for row in runs.rows:
            paper = runs.paper_values.get(row, {})
            cells = [
                mean_and_spread(list(values(runs, row, column).values()), paper.get(column))
                if _asked(runs, row, column)
                else in_brackets(paper.get(column)).strip()
                for column in self.columns
            ]
            times = [part.values["seconds"] for part in runs.of(row).values()]
            rows.append([row, str(len(times)), *cells, f"{mean(times):.0f}" if times else "…"])
            if len(known) > 1:
                rows[-1].append(sizes[row])
        if len(known) > 1:
            header.append("Images")
        images = f" Images: {known.pop()}." if len(known) == 1 else ""
        text = [
            f"Mean ± standard deviation over seeds{'; in square brackets the paper’s value' if runs.paper_values else ''}. "
            f"Arrows show which direction is better.{images}",
            markdown(header, rows),
        ]
        if runs.complete:
            text.append("![every run by column](figure.png)")
        if significant := list(self._significant(runs)):
            text.append(
                f"Differences from {runs.first} whose 95 % interval leaves out zero (Student's t over paired seeds, not "
                "corrected for their number):\n\n" + "\n".join(f"- {line}" for line in significant)
            )
        return "\n\n".join(text)

    def figures(self, runs: FinishedRuns) -> dict[str, Figure]:
        """Draw one panel per column: the mean of each row with its standard deviation, and every seed's value."""
        figure, panels = new_axes(2.2 + 1.9 * len(self.columns), 0.9 + 0.26 * len(runs.rows), columns=len(self.columns))
        for axes, column in zip(panels[0], self.columns):
            for place, row in enumerate(runs.rows):
                found = list(values(runs, row, column).values())
                axes.plot(found, [place] * len(found), "o", color="#94a3b8", ms=3)
                if found:
                    spread = stdev(found) if len(found) > 1 else 0.0
                    axes.errorbar(mean(found), place, xerr=spread, fmt="|", color="#c2410c", ms=9, lw=1.2)
            tidy(axes, title=heading(column).replace(" (", "\n("), title_size=8)
            axes.grid(axis="y", color="#e2e8f0", lw=0.6)
        panels[0, 0].set_yticks(range(len(runs.rows)), runs.rows)
        panels[0, 0].invert_yaxis()
        return {"figure.png": figure}

    def _significant(self, runs: FinishedRuns) -> Iterator[str]:
        for column in self.columns:
            found = {row: values(runs, row, column) for row in runs.rows}
            for row, _, interval, seeds in runs.differences(found):
                if interval.excludes_zero:
                    yield f"{row}, {heading(column)}: {interval.low:+.3f} to {interval.high:+.3f} ({seeds} seeds)"


def _asked(runs: FinishedRuns, row: str, column: str) -> bool:
    """Return whether a row has runs that are, or will be, evaluated for a column."""
    found = runs.of(row).values()
    return any(column in part.values["figures"] for part in found) or (not found and runs.expects(row))


def _sizes(runs: FinishedRuns, row: str) -> str:
    """Return how many images of each split the values of a row are of: the fewest and the most, if columns differ."""
    sizes: dict[str, set[int]] = {}
    for part in runs.of(row).values():
        for column, value in part.values["figures"].items():
            if value is not None:
                sizes.setdefault(column.partition("/")[0], set()).add(value["n"])
    spans = {split: sorted({min(found), max(found)}) for split, found in sizes.items()}
    return ", ".join(f"{split} {' to '.join(map(str, span))}" for split, span in spans.items())


def values(runs: FinishedRuns, row: str, column: str) -> dict[str, float]:
    """Return a column's value by seed, where it is defined."""
    found = {seed: part.values["figures"].get(column) for seed, part in runs.of(row).items()}
    return {seed: each["value"] for seed, each in found.items() if each is not None and not math.isnan(each["value"])}
