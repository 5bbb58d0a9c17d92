"""One trial: a run of the recipe with the trial's values, watched while it trains."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from optuna import Trial, TrialPruned

from sightline._core.files import FULL, make_folder, writing
from sightline.errors import OutputInUseError, SightlineError, UnwritableError
from sightline.runs import Recipe, Run, read_recipe
from sightline.sweeping.document import Sweep
from sightline.sweeping.front import measure_front
from sightline.sweeping.storage import create_sampler, identity, is_surplus
from sightline.training import train

Told = Callable[[int], None]
"""Hears how many epochs of a trial are done."""


class SurplusError(Exception):
    """A trial that another process has begun already."""


class Watcher:
    """Reports a run's epochs to Optuna when they are written, and ends a run that is not worth its time.

    Args:
        trial: Optuna's.
        run: the trial's run.
        metric: the column that is reported.
        told: called after every epoch.
    """

    def __init__(self, trial: Trial, run: Run, metric: str, told: Told) -> None:
        self.trial = trial
        self.run = run
        self.metric = metric
        self.told = told
        self._reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        told(len(run.rows))

    def __call__(self, more: bool) -> None:
        """Report a new epoch; TrialPruned ends a run that is not over by itself."""
        self.report()
        if more and self.trial.should_prune():
            raise TrialPruned(f"pruned after epoch {len(self.run.rows)}")

    def report(self) -> None:
        """Report the epochs that have not been."""
        rows = self.run.rows
        for row in rows:
            epoch = int(row["epoch"])
            if row.get(self.metric) and epoch not in self._reported:
                self.trial.report(float(row[self.metric]), epoch)
                self._reported.add(epoch)
        self.told(len(rows))


def run_trial(sweep: Sweep, trial: Trial, folder: Path, told: Callable[[int, list[str]], Told]) -> float:
    """Train a trial in its folder, or continue with it, and return its value.

    What training prints goes to a log next to the folder. The trial keeps the epochs and seconds that it took, and, where it
    fails, the error.

    Args:
        sweep: what the trial is of.
        trial: Optuna's.
        folder: of all trials.
        told: called with the trial's identity and its overrides; receives its epochs.

    Raises:
        TrialPruned: it is not worth continuing with.
        SurplusError: it is not needed.
        Exception: any error of the run.
    """
    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    if is_surplus(frozen, trial.study, sweep.wanted):
        trial.set_user_attr("surplus", True)
        raise SurplusError
    if sweep.sampler != "grid":
        trial.study.sampler = create_sampler(sweep, trial.number)
    for axis in sweep.axes:
        axis.suggest(trial)
    overrides = sweep.overrides(trial.params)
    name = f"{identity(frozen):04d}"
    run = Run(folder / name)
    try:
        with _logged(folder / f"{name}.log"):
            watcher = Watcher(trial, run, sweep.metric, told(identity(frozen), overrides))
            recipe = read_recipe(sweep.recipe, overrides)
            train(recipe, output=run.path, resume=True, watch=watcher)
            watcher.report()  # where an earlier attempt had trained it to the end
            if sweep.front is not None:
                trial.set_user_attr("front", measure_front(run, sweep.metric.partition("/")[0], sweep.front))
            return validation_value(run, recipe, sweep.metric)
    except TrialPruned:
        raise
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}".partition("\n")[0])
        full = isinstance(error, OSError) and error.errno in FULL
        trial.set_user_attr("unwritten", full or isinstance(error, UnwritableError | OutputInUseError))
        raise
    finally:
        if rows := run.rows:
            trial.set_user_attr("epochs", len(rows))
            trial.set_user_attr("seconds", float(rows[-1]["seconds"]))


@contextmanager
def _logged(file: Path) -> Iterator[None]:
    """Write what is printed within, and the traceback of an error, to the end of a file."""
    make_folder(file.parent)
    with writing(file):
        log = file.open("a", encoding="utf-8")
    with log, redirect_stderr(log):
        try:
            yield
        except (TrialPruned, UnwritableError):
            raise
        except Exception:
            traceback.print_exc()
            raise


def validation_value(run: Run, recipe: Recipe, metric: str) -> float:
    """Return a run's validation value, at the epoch whose weights the run stands for: the selected one, else the last."""
    rows = [row for row in run.rows if row.get(metric)]
    if not rows:
        raise SightlineError(f"the run has no {metric}")
    if recipe.save_best is None:
        return float(rows[-1][metric])
    watched, best = recipe.save_best.metric, max if recipe.save_best.mode == "max" else min
    return float(best(rows, key=lambda row: float(row[watched]))[metric])
