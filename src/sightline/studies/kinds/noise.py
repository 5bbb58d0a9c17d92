"""Noise: how the accuracy of trained models falls with the level of noise on the object, and with that around it."""

import json
from statistics import mean
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from sightline.reporting.markdown import markdown
from sightline.studies.kinds.training_runs import TrainingRuns, mean_and_spread, split_column
from sightline.studies.lines import COLORS
from sightline.studies.study import KINDS, Done, Part
from sightline.training import Run

REGIONS = {"foreground_noise_accuracy": "noise on the object", "background_noise_accuracy": "noise around it"}


@KINDS.register("noise")
class Noise(TrainingRuns):
    """Variants x seeds as for the kind `training_runs`, with the accuracy at each level of noise, and the RFS.

    "Mitigating Bias: Enhancing Image Classification by Improving Model Explanations", section 4.3, Figures 3 and 4. The RFS of
    a level is the accuracy under noise around the object less that under noise on it.

    Attributes:
        columns: as for `training_runs`; those of one split, whose noise metrics give the curves.
    """

    kind: Literal["noise"]  # type: ignore[assignment]
    columns: Annotated[
        list[Annotated[str, Field(pattern=r"^\w+/[\w.+-]+(@[\w.+-]+)?$")]],
        Field(
            min_length=1,
            default_factory=lambda: [
                "test/accuracy",
                *(f"test/{metric}" for metric in REGIONS),
                "test/rfs",
                "test/normalized_rfs",
            ],
        ),
    ]

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if len({split_column(column)[0] for column in self.columns}) > 1:
            raise ValueError("columns: are of several splits; the curves are of one")
        if missing := set(REGIONS) - {split_column(column)[1] for column in self.columns}:
            raise ValueError(f"columns: {sorted(missing)[0]} is not among them, so that there is no curve of it")
        return self

    def look(self, run: Run, device: torch.device) -> Part:
        """The curves that the evaluation of the run has written."""
        split = split_column(self.columns[0])[0]
        text = (run.path / "evaluation" / split / "curves.json").read_text(encoding="utf-8")
        curves = json.loads(text)[""]  # those where maps play no part
        return Part({"curves": {metric: curves[metric] for metric in REGIONS}})

    def table(self, done: Done) -> list[dict[str, Any]]:
        """A row a variant, seed and column, and one for every level."""
        levels = [
            {"variant": row, "seed": int(seed), "column": metric, "value": score, "level": level}
            for part, kept in done.items()
            for row, _, seed in [part.rpartition("/")]
            for metric, curve in kept.values["curves"].items()
            for level, score in zip(curve["at"], curve["score"])
        ]
        return super().table(done) + levels

    def summary(self, done: Done) -> str:
        """The accuracy by level, and the figures of the runs."""
        sections = ["![accuracy by level of noise, and RFS](noise.png)"] if set(self.parts()) <= set(done) else []
        for metric, name in REGIONS.items():
            curves = {row.label: self._curves(row.label, metric, done) for row in self.rows}
            levels = next((list(found[0]) for found in curves.values() if found), [])
            rows = [
                [label, str(len(found)), *(mean_and_spread([curve[level] for curve in found]) for level in levels)]
                for label, found in curves.items()
            ]
            if levels:
                header = ["Variant", "Seeds", *(f"{255 * level:.0f}/255" for level in levels)]
                sections.append(
                    f"Accuracy by the standard deviation of the {name}, mean ± standard deviation over seeds:"
                )
                sections.append(markdown(header, rows))
        return "\n\n".join([*sections, "## What the runs are worth", super().summary(done)])

    def figures(self, done: Done) -> dict[str, Figure]:
        """Accuracy under noise on the object and around it by level, and the RFS; and the figures of the runs."""
        figure = Figure(figsize=(11, 4), dpi=150, layout="constrained", facecolor="white")
        left, middle, right = figure.subplots(1, 3)
        for axes, (metric, name) in zip((left, middle), REGIONS.items()):
            for row, style in self._styles().items():
                curve = _mean_curve(self._curves(row, metric, done))
                axes.plot([255 * level for level in curve], list(curve.values()), label=row, ms=3, lw=1.4, **style)
            axes.set(title=name, xlabel="standard deviation, of 255", xlim=(0, None), ylim=(0, 1))
        left.set_ylabel("accuracy")
        middle.sharey(left)
        self._draw_rfs(right, done)
        for axes in (left, middle, right):
            axes.title.set_fontsize(9)
            for label in (axes.xaxis.label, axes.yaxis.label):
                label.set_fontsize(8)
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=6,
            fontsize=7,
            handlelength=3,
            frameon=False,
        )
        return {"noise.png": figure} | super().figures(done)

    def _draw_rfs(self, axes: Axes, done: Done) -> None:
        """A bar a row, and the value of every seed."""
        for place, (row, style) in enumerate(self._styles().items()):
            foreground, background = (self._curves(row, metric, done) for metric in REGIONS)
            values = [mean(b.values()) - mean(f.values()) for f, b in zip(foreground, background)]
            filled = style["linestyle"] == "-"
            axes.bar(
                place, mean(values), color=style["color"] if filled else "white", edgecolor=style["color"], width=0.7
            )
            axes.plot([place] * len(values), values, "o", color="#0f172a", ms=2.5)
        axes.axhline(0, color="#94a3b8", lw=0.8)
        axes.set(title="RFS, mean over levels", xticks=range(len(self.rows)))
        axes.set_xticklabels([row.label.replace(", ", "\n") for row in self.rows])

    def _styles(self) -> dict[str, dict[str, Any]]:
        """How each row is drawn: a color per combination of the axes, else per variant; the first variant is dashed."""
        several = len(self.panels) > 1
        return {
            row: {
                "color": COLORS[(group if several else place) % len(COLORS)],
                "linestyle": "--" if place == 0 else "-",
                "marker": "o",
                "markerfacecolor": "white" if place == 0 else None,
            }
            for group, labels in enumerate(self.panels.values())
            for place, row in enumerate(labels.values())
        }

    def _curves(self, row: str, metric: str, done: Done) -> list[dict[float, float]]:
        """Level -> accuracy, of each seed that is done."""
        found = [kept.values["curves"][metric] for part, kept in done.items() if part.rpartition("/")[0] == row]
        return [dict(zip(curve["at"], curve["score"])) for curve in found]


def _mean_curve(curves: list[dict[float, float]]) -> dict[float, float]:
    """The mean over seeds at each level."""
    return {level: mean(curve[level] for curve in curves) for level in curves[0]}
