"""Accuracy by the level of noise on the object and around it, and the RFS."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sightline.evaluation.split_folder.curves import read_curves
from sightline.experiments.columns import split_column
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import COLORS, new_axes, tidy
from sightline.runs import Run
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread

REGIONS = {"foreground_noise_accuracy": "noise on the object", "background_noise_accuracy": "noise around it"}


@OUTPUTS.register("noise_curves")
class NoiseCurves(Output):
    """Accuracy at each level of noise, from the study's columns of noise metrics, and the RFS.

    "Mitigating Bias: Enhancing Image Classification by Improving Model Explanations", section 4.3, Figures 3 and 4. The RFS of
    a level is the accuracy under noise around the object minus that under noise on it.

    Attributes:
        split: whose images get noise.
    """

    split: str = "test"

    def check(self, columns: Sequence[str], rows: Sequence[str]) -> None:
        """Check that the columns hold both noise metrics of the split."""
        found = {metric for split, metric, _ in map(split_column, columns) if split == self.split}
        if missing := sorted(REGIONS.keys() - found):
            raise ValueError(f"columns: {self.split}/{missing[0]} is missing, which the output noise_curves draws")

    def measure(self, run: Run, device: torch.device) -> Part:
        """Read the curves that the evaluation of the run has written."""
        curves = read_curves(run.path / "evaluation" / self.split / "curves.json")[""]  # those that need no maps
        return Part({"curves": {name: dict(zip(("at", "score"), curves[name].tolist())) for name in REGIONS}})

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per variant, seed, metric and level."""
        return [
            {"variant": row, "seed": int(seed), "column": metric, "value": score, "level": level}
            for row, seed, part in runs
            for metric, curve in part.values["curves"].items()
            for level, score in zip(curve["at"], curve["score"])
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Return the accuracy by level."""
        sections = ["![accuracy by level of noise, and RFS](noise.png)"] if runs.complete else []
        for metric, name in REGIONS.items():
            curves = {row: _curves(runs, row, metric) for row in runs.rows}
            levels = next((list(found[0]) for found in curves.values() if found), [])
            rows = [
                [row, str(len(found)), *(mean_and_spread([curve[level] for curve in found]) for level in levels)]
                for row, found in curves.items()
            ]
            if levels:
                header = ["Variant", "Seeds", *(f"{255 * level:.0f}/255" for level in levels)]
                sections.append(
                    f"Accuracy by the standard deviation of the {name}, mean ± standard deviation over seeds:"
                )
                sections.append(markdown(header, rows))
        return "\n\n".join(sections)

    def figures(self, runs: FinishedRuns) -> dict[str, Figure]:
        """Draw the accuracy by level for both regions, and the RFS."""
        figure, grid = new_axes(11, 4, columns=3)
        left, middle, right = grid[0]
        for axes, (metric, name) in zip((left, middle), REGIONS.items()):
            for row, style in _styles(runs).items():
                curves = _curves(runs, row, metric)
                places = [255 * level for level in curves[0]]
                axes.plot(places, _means(curves), label=row, ms=3, lw=1.4, **style)
            axes.set(xlim=(0, None), ylim=(0, 1))
            tidy(axes, title=name, x_label="standard deviation, of 255")
        left.set_ylabel("accuracy", fontsize=8)
        middle.sharey(left)
        _draw_rfs(right, runs)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=6, fontsize=7, handlelength=3, frameon=False
        )  # fmt: skip
        return {"noise.png": figure}


def _draw_rfs(axes: Axes, runs: FinishedRuns) -> None:
    """Draw one bar per row, and the value of every seed."""
    for place, (row, style) in enumerate(_styles(runs).items()):
        foreground, background = (_curves(runs, row, metric) for metric in REGIONS)
        values = [mean(b.values()) - mean(f.values()) for f, b in zip(foreground, background)]
        color = style["color"]
        filled = style["linestyle"] == "-"
        axes.bar(place, mean(values), color=color if filled else "white", edgecolor=color, width=0.7)
        axes.plot([place] * len(values), values, "o", color="#0f172a", ms=2.5)
    axes.axhline(0, color="#94a3b8", lw=0.8)
    axes.set_xticks(range(len(runs.rows)), [row.replace(", ", "\n") for row in runs.rows])
    tidy(axes, title="RFS, mean over levels")


def _styles(runs: FinishedRuns) -> dict[str, dict[str, Any]]:
    """How each row is drawn: a color per combination of the grid, else per variant; the first variant is dashed."""
    several = len(runs.panels) > 1
    return {
        row: {
            "color": COLORS[(group if several else place) % len(COLORS)],
            "linestyle": "--" if place == 0 else "-",
            "marker": "o",
            "markerfacecolor": "white" if place == 0 else None,
        }
        for group, labels in enumerate(runs.panels.values())
        for place, row in enumerate(labels.values())
    }


def _curves(runs: FinishedRuns, row: str, metric: str) -> list[dict[float, float]]:
    """Level -> accuracy, of each finished seed."""
    found = [part.values["curves"][metric] for part in runs.of(row).values()]
    return [dict(zip(curve["at"], curve["score"])) for curve in found]


def _means(curves: list[dict[float, float]]) -> list[float]:
    """Return the mean over seeds at each level."""
    return [mean(curve[level] for curve in curves) for level in curves[0]]
