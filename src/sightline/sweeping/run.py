"""`sweep`: trials until there are as many as wanted, by as many processes as share the database."""

import shlex
import time
import warnings
from pathlib import Path
from typing import Any

from optuna import Trial
from optuna.study import Study
from optuna.trial import TrialState

from sightline._core.files import is_new, write_atomically
from sightline._core.output_lock import holding_folder
from sightline._core.progress import ProgressBar
from sightline._core.strict import read_mapping
from sightline.errors import RunFailedError, SightlineError, UnwritableError
from sightline.runs import read_recipe
from sightline.sweeping import storage as database
from sightline.sweeping.document import Sweep
from sightline.sweeping.front import check_annotation
from sightline.sweeping.outcome import Outcome, read_outcome
from sightline.sweeping.results import write_figures, write_tables
from sightline.sweeping.trial import run_trial
from sightline.training.build import build, check_names
from sightline.training.watched_values import check_watched

WAIT = 60.0  # seconds for other processes that write to the sweep's folder


def sweep(document: Sweep, output: str | Path | None = None, storage: str | None = None) -> Outcome:
    """Make the trials of a sweep that are missing, and write their results.

    The same call on the same folder continues: a trial whose process was killed continues from its checkpoint, and a greater
    number of trials adds to those there are. Several processes may work on one sweep at the same time.

    Args:
        document: what to sweep.
        output: the folder; None = runs/sweep/NAME.
        storage: a database that several machines share, as SQLAlchemy writes its address; None = SQLite in the folder.

    Returns:
        What came of it.

    Raises:
        SightlineError: the recipe, the folder or the database is wrong; no trial has been begun.
        RunFailedError: every trial failed; names the first error.
        UnwritableError: a file or the database cannot be written any more.
    """
    folder = Path(output or Path("runs", "sweep", document.name))
    if _is_new(folder, document, storage):
        check_recipe(document)
    if storage is not None:
        database.open_study(document, storage)  # which may reject, and then nothing has been written
    url = storage or f"sqlite:///{(folder / 'sweep.db').as_posix()}"
    with database.reachable(url):
        with holding_folder(folder, WAIT):
            write_atomically(folder / "sweep.yaml", document.to_yaml().encode())
            write_atomically(folder / "recipe.yaml", document.recipe.to_yaml().encode())
            study = database.open_study(document, url)
            database.retry_unwritten(study)
        _make_trials(document, study, folder)
        with holding_folder(folder, WAIT):
            outcome = read_outcome(document, study, folder)
            write_figures(outcome)
            write_tables(outcome)
    if outcome.best is None and not any(trial.state == "running" for trial in outcome.trials):
        failed = [trial for trial in outcome.trials if trial.state == "failed"]
        why = (
            f"the first error: {failed[0].error} (see {folder / failed[0].log})"
            if failed
            else "none was worth finishing"
        )
        raise RunFailedError(f"none of {len(outcome.trials)} trials in {folder} has a result; {why}")
    return outcome


def _make_trials(document: Sweep, study: Study, folder: Path) -> None:
    """Begin trials while any are missing, then give those of other processes the time to show that they are alive."""
    display = _Display(document, study)
    with display.bar:
        idle = time.monotonic()
        while True:
            database.retry_stale(study)
            trials = database.attempts(study)
            if database.distinct(trials) < document.wanted or database.count(trials, TrialState.WAITING):
                _make_trial(document, study, folder, display)
                with holding_folder(folder, WAIT):
                    write_tables(read_outcome(document, study, folder))
                idle = time.monotonic()
            elif database.count(trials, TrialState.RUNNING) and time.monotonic() - idle < database.GRACE + 1:
                display.wait()
                time.sleep(0.5)
            else:
                display.left(database.count(trials, TrialState.RUNNING))
                return


def _make_trial(document: Sweep, study: Study, folder: Path, display: "_Display") -> None:
    begun: list[Trial] = []

    def objective(trial: Trial) -> float:
        begun.append(trial)
        return run_trial(document, trial, folder / "trials", display)

    try:
        study.optimize(objective, n_trials=1, catch=(Exception,), gc_after_trial=True)
    except KeyboardInterrupt:
        for trial in begun:
            ended = study.get_trials()[trial.number]
            if ended.state == TrialState.FAIL and "error" not in ended.user_attrs:
                database.retry(study, ended)
        raise
    display.done(begun[-1].number)
    ended = study.get_trials(deepcopy=False)[begun[-1].number]
    if ended.state == TrialState.FAIL and ended.user_attrs.get("unwritten"):
        raise UnwritableError(f"{ended.user_attrs['error']}; the same command tries this trial again")


def _is_new(folder: Path, document: Sweep, storage: str | None) -> bool:
    """Whether a folder holds nothing yet; rejects one that holds anything but this sweep."""
    if is_new(folder):
        return True
    if not (folder / "sweep.yaml").is_file():
        raise SightlineError(f"output {folder} is not the folder of a sweep; choose another")
    made = Sweep(**read_mapping(folder / "sweep.yaml"))
    database.refuse_another(made, document, f"output {folder} holds a sweep")
    if storage is None and (folder / "trials").exists() and not (folder / "sweep.db").exists():
        raise SightlineError(f"output {folder} has its trials in another database; give its address by --storage again")
    return False


def check_recipe(document: Sweep) -> None:
    """Reject what every trial would fail of: names in any value, and errors that `build` finds at the first values.

    A warning says where the validation split shares the shortcut of training.
    """
    first = {axis.key: axis.ends[0] for axis in document.axes}
    for axis in document.axes:
        for value in axis.ends:
            try:
                check_names(read_recipe(document.recipe, document.changes(first | {axis.key: value})))
            except SightlineError as error:
                raise SightlineError(f"space.{axis.key}: {value!r}: {error}") from error
    parts = build(read_recipe(document.recipe, document.changes(first)))
    known = check_watched("metric", document.metric, parts.splits)
    split, _, value = document.metric.partition("/")
    others = [name for name in parts.splits if name.startswith(f"{split}_") and f"{name}/{value}" in known]
    if others:
        warnings.warn(
            f"metric is {document.metric}, and the split {split!r} has the backgrounds or marks of training: where they give "
            f"the class away, the best trial may be the one that reads them. metric={others[0]}/{value} judges by others",
            stacklevel=3,
        )
    if document.front is not None:
        check_annotation(document.front, split, parts.splits[split])


class _Display:
    """One bar over the trials of all processes, and a line for every trial that this one ends.

    What training prints goes to the trial's log, where it does not disturb the bar.
    """

    def __init__(self, document: Sweep, study: Study) -> None:
        self._document = document
        self._study = study
        self.bar = ProgressBar(True, "", document.wanted)
        self._refresh("")

    def __call__(self, trial: int, overrides: list[str]) -> Any:
        """Start a trial; return the callback for its epochs."""
        epochs = sum(stage.epochs for stage in read_recipe(self._document.recipe, overrides).stages)

        def told(epoch: int) -> None:
            self._refresh(f"trial {trial}: epoch {min(epoch + 1, epochs)}/{epochs}", epoch / epochs)

        return told

    def done(self, number: int) -> None:
        """Note that a trial ended."""
        self._refresh("")
        trial = self._study.get_trials(deepcopy=False)[number]
        if "surplus" in trial.user_attrs:
            return
        what = {
            TrialState.COMPLETE: f"{self._document.metric} {trial.value:.4f}" if trial.value is not None else "",
            TrialState.PRUNED: f"pruned after epoch {trial.user_attrs.get('epochs')}",
        }.get(trial.state, f"failed: {trial.user_attrs.get('error')}")
        words = " ".join(shlex.quote(word) for word in self._document.overrides(trial.params))
        seconds = trial.user_attrs.get("seconds")
        line = f"trial {database.identity(trial)}  {what}  {words}" + (f"  {seconds:.1f} s" if seconds else "")
        self.bar.print(line)

    def wait(self) -> None:
        """Nothing is left to begin."""
        self._refresh("waiting for trials of other processes")

    def left(self, running: int) -> None:
        """Note that this process has done its part."""
        if running:
            self.bar.print(
                f"{running} trials are still running in other processes; the same command shows their results later"
            )

    def _refresh(self, description: str, share: float = 0) -> None:
        trials = database.attempts(self._study)
        ended = database.count(trials, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        best = (min if self._document.minimized else max)(values, default=None)
        self.bar.update(
            description=description, completed=min(ended + share, self._document.wanted),
            text="" if best is None else f"best {best:.4f}",
        )  # fmt: skip
