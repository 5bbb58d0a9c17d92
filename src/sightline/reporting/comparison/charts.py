"""The geometry of the report's drawings; the template draws them as SVG and HTML.

Own drawings rather than matplotlib's: they take their colours from the page, so they follow light and dark, their
text is text, and a dozen of them are smaller than one bitmap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from sightline.evaluation.comparison import (
    ACCURACY,
    CHANCE,
    WORST_GROUP,
    Comparison,
    Difference,
    Group,
    SplitComparison,
)
from sightline.reporting.formatting import title
from sightline.statistics.bootstrap import Array

WIDTH, HEIGHT = 340, 210  # about a phone's width, so the text keeps its size wherever the drawing goes
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 30


@dataclass(frozen=True)
class Line:
    """One line of a chart: its points and the classes that give it its look."""

    points: str
    style: str


@dataclass(frozen=True)
class Chart:
    """A line chart, in the units of its view box.

    Attributes:
        title: what is drawn.
        x_label: what runs to the right.
        x_ticks: (position, text).
        y_ticks: (position, text).
        lines: back to front.
        summary: the chart in a sentence, for those who cannot see it.
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    summary: str


@dataclass(frozen=True)
class Scale:
    """A linear scale between round numbers, with its ticks."""

    low: float
    high: float
    ticks: list[float]

    @classmethod
    def over(cls, values: Sequence[float] | Array, bins: int = 4) -> "Scale":
        """Return the scale that holds all finite values."""
        finite = np.asarray(values, float)[np.isfinite(values)]
        low, high = float(finite.min()), float(finite.max())
        upper = high if high > low else low + max(abs(low), 1) / 10  # one value gets a range around it
        ticks = MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, upper)
        return cls(float(ticks[0]), float(ticks[-1]), [float(t) for t in ticks])

    def share(self, value: float) -> float:
        """Where a value is between the ends, in [0, 1]."""
        return (value - self.low) / (self.high - self.low)


def learning_curves(comparison: Comparison) -> list[Chart]:
    """Draw task loss, guide terms and accuracies by epoch, from two epochs on: a thin line per run, a thick one for the mean.

    The total loss is left out: it adds up different terms in the two groups, so its lines say nothing of each
    other.
    """
    columns = dict.fromkeys(c for group in (comparison.theirs, comparison.ours) for r in group.runs for c in r.history)
    drawn = [c for c in columns if "/" in c and not c.startswith("n/") and not c.endswith("/loss")]
    charts = []
    for column in drawn:
        lines = [
            (run.history["epoch"], run.history[column], f"{side} run")
            for side, group in (("theirs", comparison.theirs), ("ours", comparison.ours))
            for run in group.runs
            if column in run.history and np.isfinite(run.history[column]).sum() > 1  # one point is not a line
        ]
        means = [
            (*_mean_by_epoch(group, column), side)
            for side, group in (("theirs", comparison.theirs), ("ours", comparison.ours))
            if any(style == f"{side} run" for *_, style in lines)
        ]
        if lines:
            where, _, what = column.partition("/")
            name = "Cross-entropy" if what == "task" else title(what)
            charts.append(_chart(f"{name}, {where}", "epoch", [*lines, *means], percent=what.endswith("accuracy")))
    return charts


def score_curves(split: SplitComparison) -> list[Chart]:
    """Draw insertion and deletion by share of pixels, mean over runs, with chance explainers of `ours` as broken lines."""
    charts = []
    for explainer in split.explainers:
        if explainer in CHANCE:
            continue
        for kind in ("insertion", "deletion"):
            sides = (("theirs", split.theirs), ("ours", split.ours))
            lines = []
            for name, suffix in [*((c, " chance") for c in CHANCE if c == "randomcam"), (explainer, "")]:
                for side, evaluations in sides:
                    curves = [e.curves[name][kind] for e in evaluations if kind in e.curves.get(name, {})]
                    if curves:
                        at, score = np.mean(curves, axis=0)
                        lines.append((at, score, side + suffix))
            if any("chance" not in style for *_, style in lines):
                what = "pixels inserted" if kind == "insertion" else "pixels deleted"
                charts.append(_chart(f"{kind.capitalize()}, {explainer}", f"share of {what}", lines))
    return charts


@dataclass(frozen=True)
class Dot:
    """A run on a strip, in per cent of its width."""

    at: float
    side: str


@dataclass(frozen=True)
class Strip:
    """One row of the accuracy figure."""

    name: str
    difference: Difference
    dots: list[Dot]
    ours: float
    theirs: float


def accuracy_strips(comparison: Comparison) -> tuple[Scale, list[Strip]]:
    """Accuracy and worst-group accuracy on every split: a dot per run, a bar for the mean."""
    differences = [
        (split.split, split.differences[key])
        for split in comparison.splits
        for key in (ACCURACY, WORST_GROUP)
        if key in split.differences
    ]
    scale = Scale.over([v for _, d in differences for v in (*d.ours, *d.theirs)], bins=5)
    strips = [
        Strip(
            name=split if d.key == ACCURACY else f"{split}, worst group",
            difference=d,
            dots=[
                Dot(100 * scale.share(value), side)
                for side, values in (("theirs", d.theirs), ("ours", d.ours))
                for value in values
            ],
            ours=100 * scale.share(float(np.mean(d.ours))),
            theirs=100 * scale.share(float(np.mean(d.theirs))),
        )
        for split, d in differences
    ]
    return scale, strips


def _mean_by_epoch(group: Group, column: str) -> tuple[Array, Array]:
    """Mean over the runs at the epochs that all of them reached."""
    histories = [run.history for run in group.runs if column in run.history]
    length = min(len(history["epoch"]) for history in histories)
    return histories[0]["epoch"][:length], np.mean([history[column][:length] for history in histories], axis=0)


def _chart(name: str, x_label: str, lines: Sequence[tuple[Array, Array, str]], percent: bool = False) -> Chart:
    x_low, x_high = min(float(x.min()) for x, *_ in lines), max(float(x.max()) for x, *_ in lines)
    y_scale = Scale.over(np.concatenate([y for _, y, _ in lines]))
    whole = x_label == "epoch"
    x_ticks = [
        t for t in MaxNLocator(4, integer=whole, steps=[1, 2, 2.5, 5, 10]).tick_values(x_low, x_high)
        if x_low <= t <= x_high
    ]  # fmt: skip

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - x_low) / ((x_high - x_low) or 1), 1)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y_scale.share(y), 1)

    drawn = [
        Line(" ".join(f"{across(a)},{down(b)}" for a, b in zip(x, y) if np.isfinite(b)), style) for x, y, style in lines
    ]
    ends = [f"{style}: {y[np.isfinite(y)][-1]:.3g}" for _, y, style in lines if style in ("ours", "theirs")]
    return Chart(
        title=name,
        x_label=x_label,
        x_ticks=[(across(t), f"{t:g}") for t in x_ticks],
        y_ticks=[(down(t), f"{100 * t:g}%" if percent else f"{t:g}") for t in y_scale.ticks],
        lines=drawn,
        summary=f"{name} by {x_label}; last value of {', of '.join(ends)}",
    )
