"""Experiment trackers beside the run folder: Weights & Biases, MLflow, and any other logger of Fabric's interface.

The folder is what counts. It holds all that a logger is told, so that a tracker which cannot be reached costs no training: it
is left in peace until the run ends, and then gets every row that it has not got.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from sightline._core.optional import missing_dependency
from sightline._core.registry import Entry
from sightline._core.strict import flat
from sightline.errors import SightlineError
from sightline.training.recipe import Recipe, Tracker
from sightline.training.run import Run

LOG = logging.getLogger(__name__)


class Logger(Protocol):
    """What training uses of a logger: a part of Lightning Fabric's interface."""

    @property
    def name(self) -> str | None:
        """Where the run is listed."""

    @property
    def version(self) -> int | str | None:
        """The run's id."""

    def log_hyperparams(self, params: Any) -> None:
        """Keep the recipe."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the row of the epoch `step`."""

    def finalize(self, status: str) -> None:
        """End the run with "success" or "failed"."""


class WandbLogger:
    """A run of Weights & Biases, with the epoch as its axis.

    Args:
        run: whose folder gets W&B's local files, and whose name the run there has.
        version: id of the run to go on with; None = a new one.
        project: where it is listed.
        options: of `wandb.init`, such as `entity`, `tags` or `mode: offline`.
    """

    def __init__(self, *, run: Run, version: str | None, project: str = "sightline", **options: Any) -> None:
        import wandb

        given: dict[str, Any] = {"project": project, "name": run.path.name, "dir": run.path, **options}
        # A run of the caller's own, in the same process, is not ours to write to.
        self._run = wandb.init(id=version, resume="allow", reinit="create_new", **given)
        self._project, self._id = given["project"], self._run.id
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str:
        """The run's id."""
        return self._id

    def log_hyperparams(self, params: Any) -> None:
        """Keep the recipe."""
        self._run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send a row, whose epoch is `step`."""
        self._run.log({**metrics, "epoch": step})

    def finalize(self, status: str) -> None:
        """Send what is left, and end the run."""
        self._run.finish(exit_code=int(status != "success"))


class MLflowLogger:
    """A run of MLflow.

    Args:
        run: whose name the run there has.
        version: id of the run to go on with; None = a new one.
        experiment_name: where it is listed.
        tracking_uri: a server, or `sqlite:///FILE`; None = MLflow's own choice, such as the environment's MLFLOW_TRACKING_URI.
        tags: of a new run.
    """

    def __init__(
        self,
        *,
        run: Run,
        version: str | None,
        experiment_name: str = "sightline",
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri)
        self._name = experiment_name
        if version is not None:
            self._client.update_run(version, status="RUNNING")
            self._id = version
            return
        found = self._client.get_experiment_by_name(experiment_name)
        experiment = self._client.create_experiment(experiment_name) if found is None else found.experiment_id
        self._id = self._client.create_run(experiment, run_name=run.path.name, tags=tags).info.run_id

    @property
    def name(self) -> str:
        """The experiment."""
        return self._name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._id

    def log_hyperparams(self, params: Any) -> None:
        """Keep the recipe, a parameter for each of its keys."""
        from mlflow.entities import Param

        told = [Param(key, str(value)) for key, value in flat(dict(params))]
        for start in range(0, len(told), 100):  # as many as the server takes in one request
            self._client.log_batch(self._id, params=told[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send a row, whose epoch is `step`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(key, value, now, step or 0) for key, value in metrics.items()])

    def finalize(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self._id, "FINISHED" if status == "success" else "FAILED")


TRACKERS: dict[str, Callable[..., Logger]] = {"wandb": WandbLogger, "mlflow": MLflowLogger}


def check_installed(trackers: Sequence[Tracker]) -> None:
    """Refuse a tracker whose package is missing.

    Raises:
        SightlineError: names the package and how to get it.
    """
    for tracker in trackers:
        found = find_spec(tracker.name)
        if found is None or found.origin is None:  # a folder of that name, as W&B makes one, is no package
            raise missing_dependency(tracker.name, tracker.name, f"the logger {tracker.name!r}")


@dataclass
class Link:
    """A logger, and how far it has come.

    Attributes:
        epochs: how many of the run it has.
        broken: it has failed, and is not asked again before the end.
    """

    logger: Logger
    epochs: int = 0
    broken: bool = False


class Loggers:
    """All loggers of a run. One thread of their own writes to them, so that no epoch waits for a network.

    Opened by the first process alone; where it is not open, nothing happens.

    Args:
        run: whose rows they get.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.links: dict[str, Link] = {}
        self.thread = ThreadPoolExecutor(1, "loggers")

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says of them: the id of each one's run, and how many epochs it has."""
        record = {name: {"id": str(link.logger.version), "epochs": link.epochs} for name, link in self.links.items()}
        return {"loggers": record} if record else {}

    def open(self, recipe: Recipe, given: Sequence[Logger] = ()) -> None:
        """Connect, going on with the runs that run.json names, and tell the recipe.

        Args:
            recipe: names the trackers, and is what they are told.
            given: further loggers, made by the caller.

        Raises:
            SightlineError: one cannot be reached, or an option is wrong; what had been written for it is removed.
        """
        known = self.run.facts.get("loggers", {}) if (self.run.path / "run.json").exists() else {}
        fresh, name = not self.run.path.exists(), ""
        try:
            for tracker in recipe.loggers:
                name = tracker.name
                version = known.get(name, {}).get("id")
                self.links[name] = Link(Entry(name, TRACKERS[name])(run=self.run, version=version, **tracker.options))
            for number, logger in enumerate(given):
                self.links[f"{type(logger).__name__}.{number}"] = Link(logger)
            for name, link in self.links.items():
                if known.get(name, {}).get("id") == str(link.logger.version):
                    link.epochs = known[name]["epochs"]
                link.logger.log_hyperparams(recipe.model_dump(mode="json"))
        except Exception as error:
            self.close("failed")
            if fresh:
                shutil.rmtree(self.run.path, ignore_errors=True)
            if isinstance(error, SightlineError):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SightlineError(f"loggers: {name} cannot be used: {reason}") from error

    def send(self) -> None:
        """Pass on the rows of metrics.csv that each logger has not got."""
        if self.links:
            self.thread.submit(self._send, self.run.rows)
            self.run.update(**self.facts)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Close them when what is done within is done, whether it succeeds or not."""
        status = "failed"
        try:
            yield
            status = "success"
        finally:
            self.close(status)
            if self.links:
                with suppress(OSError):  # of a full disk, which what was done within has reported
                    self.run.update(**self.facts)

    def close(self, status: str, figures: Mapping[str, float] | None = None) -> None:
        """Pass on what is left, and end the loggers' runs.

        Args:
            status: "success", or "failed".
            figures: to be told last.
        """
        if not self.links:
            return
        self.thread.submit(self._end, self.run.rows, status, figures or {}).result()
        self.thread.shutdown()

    def _send(self, rows: list[dict[str, str]]) -> None:
        for name, link in self.links.items():
            if not link.broken:
                try:
                    for row in rows[link.epochs :]:
                        told = {key: float(value) for key, value in row.items() if value and key != "epoch"}
                        link.logger.log_metrics(told, step=int(row["epoch"]))
                        link.epochs = int(row["epoch"])
                except Exception as error:
                    link.broken = True
                    LOG.warning("%s cannot be reached, and is asked again when the run ends: %s", name, error)

    def _end(self, rows: list[dict[str, str]], status: str, figures: Mapping[str, float]) -> None:
        for link in self.links.values():
            link.broken = False
        self._send(rows)
        for name, link in self.links.items():
            if not link.broken:
                try:
                    if figures:
                        link.logger.log_metrics(dict(figures), step=link.epochs)
                    link.logger.finalize(status)
                except Exception as error:
                    LOG.warning("%s cannot be reached: %s", name, error)


def log_figures(run: Run, recipe: Recipe, figures: Mapping[str, float]) -> None:
    """Tell a run's trackers what an evaluation found. One that cannot be reached is warned of: the folder has the figures.

    Args:
        run: trained, with the trackers' ids in its run.json.
        recipe: its recipe.
        figures: by name; undefined ones, NaN, are left out.
    """
    if not recipe.loggers:
        return
    loggers = Loggers(run)
    try:
        check_installed(recipe.loggers)
        loggers.open(recipe)
    except SightlineError as error:
        LOG.warning("the figures are in the run folder alone: %s", error)
        return
    loggers.close("success", {key.replace("@", "/"): value for key, value in figures.items() if value == value})
