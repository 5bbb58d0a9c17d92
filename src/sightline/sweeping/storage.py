"""The sweep in Optuna's database: which trials there are, and which are still to be made."""

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from sightline._core.seeding import derive_seed
from sightline._core.strict import difference
from sightline.errors import SightlineError, UnwritableError
from sightline.sweeping.document import Sweep

HEARTBEAT = 10  # seconds from one sign of life of a running trial to the next
GRACE = 60  # seconds without one after which its process counts as dead, and the trial is taken up again
ATTEMPTS = 5  # to make the tables, which several processes may be about to do at the same moment


class SweepStorage(RDBStorage):
    """A database that also knows as stale a trial whose process died before the first sign of life."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # Optuna asks this of every storage. It looks only at trials that have given a sign of life.
        silent = "SELECT trial_id FROM trials WHERE study_id = :study AND state = 'RUNNING' AND trial_id NOT IN "
        with self.engine.connect() as connection:
            found = connection.execute(text(f"{silent} (SELECT trial_id FROM trial_heartbeats)"), {"study": study_id})
            now = time.monotonic()
            self._silent = {trial: self._silent.get(trial, now) for trial in found.scalars()}
        dead = [trial for trial, since in self._silent.items() if now - since > GRACE]
        return [*super()._get_stale_trial_ids(study_id), *dead]

    @cached_property
    def _silent(self) -> dict[int, float]:
        """Running trials without a sign of life, and since when this process has seen them so."""
        return {}


def open_study(sweep: Sweep, url: str) -> Study:
    """Open the sweep in a database, and create it if it does not exist.

    Args:
        sweep: what it is to be.
        url: of the database, as SQLAlchemy writes it.

    Raises:
        SightlineError: the database cannot be opened, or holds another sweep of this name.
    """
    study = _connect(sweep, url)
    stored = study.user_attrs.get("sweep")
    if stored is None:
        study.set_user_attr("sweep", json.dumps(sweep.model_dump(mode="json")))
    else:
        refuse_another(Sweep(**json.loads(stored)), sweep, f"the database {_shown(url)} holds a sweep {sweep.name!r}")
    return study


def refuse_another(made: Sweep, wanted: Sweep, where: str) -> None:
    """Reject to continue with a sweep that was made otherwise; the number of trials alone may change."""
    if differs := difference(made.model_copy(update={"trials": wanted.trials}), wanted):
        raise SightlineError(f"{where} that differs in {differs}; choose another by --output and --name")


def create_sampler(sweep: Sweep, number: int = 0) -> BaseSampler:
    """Create the sampler that draws a trial's values.

    Args:
        sweep: names it.
        number: of the trial. It is part of the seed, so neither a process that continues with a sweep nor one that shares
            it draws again what another has drawn.
    """
    if sweep.sampler == "grid":
        return GridSampler({axis.key: axis.stored for axis in sweep.axes}, seed=sweep.seed)
    seed = derive_seed(sweep.seed, number, "trial") % 2**32
    return RandomSampler(seed) if sweep.sampler == "random" else TPESampler(seed=seed, multivariate=False)


def create_pruner(sweep: Sweep) -> BasePruner:
    """Create the pruner that ends a trial early."""
    rule = sweep.pruning
    if rule is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=rule.trials, n_warmup_steps=rule.epochs + 1)  # epochs are counted from 1


def attempts(study: Study) -> list[FrozenTrial]:
    """Return the trials, each in its last attempt."""
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
    return [trial for trial in trials if trial.number not in retried and "surplus" not in trial.user_attrs]


def identity(trial: FrozenTrial) -> int:
    """Return the number of a trial's first attempt, which names its folder."""
    return trial.system_attrs.get("retry_history", [trial.number])[0]


def distinct(trials: list[FrozenTrial]) -> int:
    """How many of the wanted trials these make up: a point of a grid counts once."""
    return len({trial.system_attrs.get("grid_id", trial.number) for trial in trials})


def is_surplus(trial: FrozenTrial, study: Study, wanted: int) -> bool:
    """Whether a trial just begun is not needed, since other processes have begun the last ones at the same moment."""
    earlier = [other for other in attempts(study) if other.number < trial.number]
    grid_ids = [other.system_attrs["grid_id"] for other in earlier if "grid_id" in other.system_attrs]
    return distinct(earlier) >= wanted or trial.system_attrs.get("grid_id") in grid_ids


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial that did not come to its end, with its values and the epochs reported so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(study, trial)


def retry_stale(study: Study) -> None:
    """Queue the trials whose process has died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def retry_unwritten(study: Study) -> None:
    """Queue the trials that failed because their files could not be written."""
    for trial in attempts(study):
        if trial.state == TrialState.FAIL and trial.user_attrs.get("unwritten"):
            retry(study, trial)


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn what a database rejects in the middle of a sweep into one error.

    Raises:
        UnwritableError: names the database and the reason.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(getattr(error, "orig", None) or error.__cause__ or error).partition("\n")[0]
        raise UnwritableError(
            f"cannot use the database {_shown(url)}: {reason}; run the same command again when it is available"
        ) from error


def count(trials: list[FrozenTrial], *states: TrialState) -> int:
    """How many trials are in one of some states."""
    return sum(trial.state in states for trial in trials)


def _connect(sweep: Sweep, url: str) -> Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep reports the outcome of each trial
    for attempt in range(ATTEMPTS):
        try:
            options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                storage = SweepStorage(
                    url, options, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=retry
                )
            return optuna.create_study(
                storage=storage, sampler=create_sampler(sweep), pruner=create_pruner(sweep), study_name=sweep.name,
                direction="minimize" if sweep.minimized else "maximize", load_if_exists=True,
            )  # fmt: skip
        except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.StorageInternalError) as error:
            problem: Exception = error
            if not isinstance(error, SQLAlchemyError) or attempt + 1 == ATTEMPTS:
                break
            time.sleep(0.2)
    raise SightlineError(f"storage {_shown(url)} cannot be opened: {' '.join(str(problem).split())}") from problem


def _shown(url: str) -> str:
    """Return the address of a database without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return repr(url)
