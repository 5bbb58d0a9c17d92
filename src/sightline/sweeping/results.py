"""What came of a sweep: the trials, best first, as CSV, Markdown and pictures."""

import csv
import io
import os
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sightline.files import write_atomically
from sightline.reporting.markdown import markdown
from sightline.reporting.overlay import png
from sightline.sweeping.document import Sweep
from sightline.sweeping.figures import history, slices
from sightline.sweeping.storage import attempts, identity

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Result:
    """A trial.

    Attributes:
        number: which names its folder.
        state: complete, pruned, failed, running or waiting.
        value: the figure; of a pruned trial the last one reported; None where there is none.
        params: its values as the database holds them.
        overrides: the same as `sightline train` takes them.
        epochs: trained.
        seconds: of training.
        error: why it failed.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    overrides: list[str]
    epochs: int | None
    seconds: float | None
    error: str

    @property
    def run(self) -> str:
        """Its folder, seen from the sweep's."""
        return f"trials/{self.number:04d}"

    @property
    def log(self) -> str:
        """What its training printed."""
        return f"{self.run}.log"


@dataclass(frozen=True)
class Outcome:
    """A sweep as far as it has come.

    Attributes:
        sweep: what it is.
        path: its folder.
        trials: the best first, then the pruned, the failed and those that are not done.
    """

    sweep: Sweep
    path: Path
    trials: list[Result]

    @property
    def best(self) -> Result | None:
        """The best trial."""
        return next((trial for trial in self.trials if trial.state == "complete"), None)

    @property
    def command(self) -> str:
        """What trains the best trial again."""
        words = self.best.overrides if self.best else []
        return shlex.join(["sightline", "train", str(self.path / "recipe.yaml"), *words])

    @property
    def conclusion(self) -> str:
        """The best trial with its values, in a line."""
        if self.best is None:
            return "no trial has a result"
        return f"best: trial {self.best.number}, {self.sweep.metric} {self.best.value:.4f}, again by: {self.command}"


def read_outcome(sweep: Sweep, study: Study, folder: Path) -> Outcome:
    """The trials in the database."""
    return Outcome(sweep, folder, sorted((_result(sweep, trial) for trial in attempts(study)), key=_order(sweep)))


def write_tables(outcome: Outcome) -> None:
    """Write results.csv and results.md."""
    keys = [axis.key for axis in outcome.sweep.axes]
    header = ["trial", "state", outcome.sweep.metric, *keys, "epochs", "seconds", "run", "error"]
    rows = [
        [t.number, t.state, t.value, *(t.params.get(key) for key in keys), t.epochs, t.seconds, t.run, t.error]
        for t in outcome.trials
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    replace(outcome.path / "results.csv", text.getvalue().encode())
    replace(outcome.path / "results.md", _page(outcome, keys).encode())


def write_figures(outcome: Outcome) -> None:
    """Write history.png and slices.png, where any trial has a figure."""
    if any(trial.value is not None for trial in outcome.trials):
        replace(outcome.path / "history.png", png(history(outcome)))
        replace(outcome.path / "slices.png", png(slices(outcome)))


def replace(path: Path, content: bytes) -> None:
    """Replace a file that other processes may be replacing as well: the last one's is there, and whole."""
    own = path.with_name(f".{socket.gethostname()}-{os.getpid()}-{path.name}")
    write_atomically(own, content)
    own.replace(path)


def _result(sweep: Sweep, trial: FrozenTrial) -> Result:
    about = trial.user_attrs
    failed = trial.state == TrialState.FAIL
    return Result(
        number=identity(trial),
        state=STATES[trial.state],
        value=trial.value,
        params=trial.params,
        overrides=sweep.overrides(trial.params),
        epochs=about.get("epochs"),
        seconds=about.get("seconds"),
        error=about.get("error", "its process died") if failed else "",
    )


def _order(sweep: Sweep) -> Any:
    sign = 1 if sweep.minimized else -1

    def key(result: Result) -> tuple[int, float, int]:
        value = sign * result.value if result.value is not None else 0.0
        return list(STATES.values()).index(result.state), value, result.number

    return key


def _page(outcome: Outcome, keys: list[str]) -> str:
    sweep, best = outcome.sweep, outcome.best
    states = [trial.state for trial in outcome.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES.values() if state in states)
    rows = [
        [
            f"[{trial.number}]({trial.run})",
            trial.state,
            "–" if trial.value is None else f"{trial.value:.4f}",
            *(str(trial.params.get(key, "–")).replace("|", "\\|") for key in keys),
            "–" if trial.epochs is None else str(trial.epochs),
            "–" if trial.seconds is None else f"{trial.seconds:.1f}",
            trial.error.replace("|", "\\|"),
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
    if (outcome.path / "history.png").exists():
        sections.append("![the figure by trial](history.png)\n\n![the figure by each key](slices.png)")
    sections.append(markdown(["trial", "state", sweep.metric, *keys, "epochs", "seconds", "error"], rows))
    return "\n\n".join(sections) + "\n"
