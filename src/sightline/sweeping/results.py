"""A sweep's results as files: CSV, Markdown and plots."""

from sightline._core.csv_files import csv_text
from sightline._core.files import write_atomically
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.drawing import png
from sightline.sweeping.figures import history, slices
from sightline.sweeping.outcome import STATES, Outcome


def write_tables(outcome: Outcome) -> None:
    """Write results.csv and results.md."""
    keys = [axis.key for axis in outcome.sweep.axes]
    second = [] if outcome.sweep.front is None else [outcome.sweep.front, "front"]
    header = ["trial", "state", outcome.sweep.metric, *second, *keys, "epochs", "seconds", "run", "error"]
    rows = [
        [
            *(t.number, t.state, t.value, *([t.front, int(t in outcome.front)] if second else [])),
            *(*(t.params.get(key) for key in keys), t.epochs, t.seconds, t.run, t.error),
        ]
        for t in outcome.trials
    ]
    write_atomically(outcome.path / "results.csv", csv_text(header, rows).encode())
    write_atomically(outcome.path / "results.md", _page(outcome, keys).encode())


def write_figures(outcome: Outcome) -> None:
    """Write history.png and slices.png, where any trial has a value."""
    if any(trial.value is not None for trial in outcome.trials):
        write_atomically(outcome.path / "history.png", png(history(outcome)))
        write_atomically(outcome.path / "slices.png", png(slices(outcome)))


def _page(outcome: Outcome, keys: list[str]) -> str:
    sweep, best = outcome.sweep, outcome.best
    states = [trial.state for trial in outcome.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES.values() if state in states)
    rows = [
        [
            f"[{trial.number}]({trial.run})",
            trial.state,
            "–" if trial.value is None else f"{trial.value:.4f}",
            *(str(trial.params.get(key, "–")) for key in keys),
            "–" if trial.epochs is None else str(trial.epochs),
            "–" if trial.seconds is None else f"{trial.seconds:.1f}",
            trial.error,
        ]
        for trial in outcome.trials
    ]
    sections = [
        f"# Sweep {sweep.name}",
        f"{sweep.sampler}, {len(states)} of {sweep.wanted} trials: {counts}. "
        f"The {'least' if sweep.minimized else 'greatest'} {sweep.metric} is the best. Every key: [sweep.yaml](sweep.yaml).",
    ]
    if best is not None and best.value is not None:
        sections.append(f"Best: trial {best.number}, {sweep.metric} {best.value:.4f}. To train it again:")
        sections.append(f"```\n{outcome.command}\n```")
    if sweep.front is not None and outcome.front:
        sections.append(
            f"No trial beats these in both {sweep.metric} and {sweep.front}; the second figure has no part in the choice."
        )
        shown = [
            [
                f"[{t.number}]({t.run})",
                f"{t.value:.4f}",
                f"{t.front:.4f}",
                *(str(t.params.get(key, "–")) for key in keys),
            ]
            for t in outcome.front
        ]
        sections.append(markdown(["trial", sweep.metric, sweep.front, *keys], shown))
    if (outcome.path / "history.png").exists():
        sections.append("![the figure by trial](history.png)\n\n![the figure by each key](slices.png)")
    sections.append(markdown(["trial", "state", sweep.metric, *keys, "epochs", "seconds", "error"], rows))
    return "\n\n".join(sections) + "\n"
