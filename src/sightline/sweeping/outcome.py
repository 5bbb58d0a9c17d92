"""What came of a sweep: the trials, best first."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sightline.sweeping.document import Sweep
from sightline.sweeping.front import front_rises, pareto_front
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
        value: the value of the metric; of a pruned trial the last one reported; None where there is none.
        params: its values as the database holds them.
        overrides: the same as `sightline train` takes them.
        epochs: trained.
        seconds: of training.
        error: why it failed.
        front: the second metric, where the sweep has one and the trial is complete.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    overrides: list[str]
    epochs: int | None
    seconds: float | None
    error: str
    front: float | None = None

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
    """The state of a sweep.

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
    def front(self) -> list[Result]:
        """The complete trials that no other beats in both metrics of the sweep; the best first."""
        both = [(t, (t.value, t.front)) for t in self.trials if t.state == "complete" and t.front is not None]
        if self.sweep.front is None:
            return []
        points = [(value, second) for _, (value, second) in both if value is not None and second is not None]
        return [both[i][0] for i in pareto_front(points, [not self.sweep.minimized, front_rises(self.sweep.front)])]

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
    """Read the trials in the database."""
    return Outcome(sweep, folder, sorted((_result(sweep, trial) for trial in attempts(study)), key=_order(sweep)))


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
        front=about.get("front") if trial.state == TrialState.COMPLETE else None,
    )


def _order(sweep: Sweep) -> Any:
    sign = 1 if sweep.minimized else -1

    def key(result: Result) -> tuple[int, float, int]:
        value = sign * result.value if result.value is not None else 0.0
        return list(STATES.values()).index(result.state), value, result.number

    return key
