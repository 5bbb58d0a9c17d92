"""Plots of a sweep: how its best value rose, and what each key did."""

import re
from math import ceil
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sightline.reporting.plots.style import ACCENT, INK, MUTED, legend_above, new_axes, tidy
from sightline.sweeping.axes import Axis
from sightline.sweeping.outcome import Outcome, Result

COLUMNS = 3


def history(outcome: Outcome) -> Figure:
    """Every trial's value in the order of the trials, with the best so far."""
    figure, ((axes,),) = new_axes(6.4, 3.2)
    shown = sorted(_shown(outcome), key=lambda trial: trial.number)
    _dots(axes, shown, [trial.number for trial in shown])
    complete = [(trial.number, trial.value) for trial in shown if trial.state == "complete" and trial.value is not None]
    if complete:
        numbers, values = zip(*complete)
        so_far = (np.minimum if outcome.sweep.minimized else np.maximum).accumulate(values)
        end = max(trial.number for trial in outcome.trials)
        axes.step([*numbers, end], [*so_far, so_far[-1]], where="post", color=INK, lw=1, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, x_label="trial", y_label=outcome.sweep.metric)
    legend_above(figure, axes)
    return figure


def slices(outcome: Outcome) -> Figure:
    """Draw the value by each key that changes; the best trial has a ring."""
    swept = outcome.sweep.axes
    rows, columns = ceil(len(swept) / COLUMNS), min(len(swept), COLUMNS)
    figure, grid = new_axes(2.6 * columns + 0.8, 2.6 * rows, rows=rows, columns=columns, sharey=True)
    shown = _shown(outcome)
    for axes, axis in zip(grid.ravel().tolist(), swept):
        trials = [trial for trial in shown if axis.key in trial.params]
        places = _places(axes, axis, trials)
        _dots(axes, trials, places)
        for place, trial in zip(places, trials):
            if trial is outcome.best:
                axes.plot(place, trial.value, "o", ms=9, mfc="none", mec=INK, mew=1, label="best")
        tidy(axes, x_label=axis.key)
    for axes in grid.flat[len(swept) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel(outcome.sweep.metric, fontsize=8)
    legend_above(figure, grid[0, 0])
    return figure


def _shown(outcome: Outcome) -> list[Result]:
    return [trial for trial in outcome.trials if trial.value is not None]


def _dots(axes: Axes, trials: list[Result], places: list[float]) -> None:
    for state, marker, color in (("pruned", "x", MUTED), ("complete", "o", ACCENT)):
        chosen = [(place, trial.value) for place, trial in zip(places, trials) if trial.state == state]
        if chosen:
            axes.plot(*zip(*chosen), marker, color=color, ms=4, alpha=0.8, ls="", label=state)


def _places(axes: Axes, axis: Axis, trials: list[Result]) -> list[Any]:
    """Where a key's values are: numbers by size, a list's values side by side in their order."""
    if axis.range is None:
        names = [_short(value) for value in axis.stored]
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 6 else 45)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return [axis.stored.index(trial.params[axis.key]) for trial in trials]
    if axis.range.log:
        axes.set_xscale("log")
    return [trial.params[axis.key] for trial in trials]


def _short(value: Any) -> str:
    """Return a value in a few short lines; of JSON, only the words."""
    text = "null" if value is None else re.sub(r'[{}"]', "", str(value))
    return "\n".join(wrap(text, 16, max_lines=3, placeholder="…"))
