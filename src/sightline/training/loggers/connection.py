"""The connection of a run to its experiment trackers.

The run folder holds every value that a logger gets. A tracker that cannot be reached therefore stops no training. It gets no
more rows until the run ends, and then all rows that it does not have.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from sightline._core.files import is_new
from sightline._core.optional import missing_dependency
from sightline._core.registry import Entry
from sightline.errors import RunFailedError, SightlineError
from sightline.runs.recipe import Recipe
from sightline.runs.recipe_parts import Tracker
from sightline.runs.run import Run
from sightline.training.loggers.mlflow import MLflowLogger
from sightline.training.loggers.wandb import WandbLogger


class Logger(Protocol):
    """What training uses of a logger: a part of Lightning Fabric's interface."""

    @property
    def version(self) -> int | str | None:
        """The run's id."""

    def log_hyperparams(self, params: Any) -> None:
        """Keep the recipe."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the row of the epoch `step`."""

    def finalize(self, status: str) -> None:
        """End the run with "success" or "failed"."""


LOG = logging.getLogger(__name__)

TRACKERS: dict[str, Callable[..., Logger]] = {"wandb": WandbLogger, "mlflow": MLflowLogger}


def check_installed(trackers: Sequence[Tracker]) -> None:
    """Reject a tracker whose package is missing.

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
    """All loggers of a run. A separate thread writes to them, so no epoch waits for a network.

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
        """What run.json says about them: the id of each one's run, and how many epochs it has."""
        record = {name: {"id": str(link.logger.version), "epochs": link.epochs} for name, link in self.links.items()}
        return {"loggers": record} if record else {}

    def open(self, recipe: Recipe, given: Sequence[Logger] = ()) -> None:
        """Connect, continuing with the runs that run.json names, and tell the recipe.

        Args:
            recipe: names the trackers, and is what they are told.
            given: further loggers, made by the caller.

        Raises:
            SightlineError: one cannot be reached, or an option is wrong; what had been written for it is removed.
        """
        known = self.run.facts.get("loggers", {}) if (self.run.path / "run.json").exists() else {}
        fresh, name = is_new(self.run.path), ""
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
                with suppress(RunFailedError):  # of a full disk, which what was done within has reported
                    self.run.update(**self.facts)

    def close(self, status: str, values: Mapping[str, float] | None = None) -> None:
        """Pass on what is left, and end the loggers' runs.

        Args:
            status: "success", or "failed".
            values: to be told last.
        """
        if not self.links:
            return
        self.thread.submit(self._end, self.run.rows, status, values or {}).result()
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

    def _end(self, rows: list[dict[str, str]], status: str, values: Mapping[str, float]) -> None:
        for link in self.links.values():
            link.broken = False
        self._send(rows)
        for name, link in self.links.items():
            if not link.broken:
                try:
                    if values:
                        link.logger.log_metrics(dict(values), step=link.epochs)
                    link.logger.finalize(status)
                except Exception as error:
                    LOG.warning("%s cannot be reached: %s", name, error)


def log_values(run: Run, recipe: Recipe, values: Mapping[str, float]) -> None:
    """Tell a run's trackers what an evaluation found. If one cannot be reached, a warning is given: the folder has the values.

    Args:
        run: trained, with the trackers' ids in its run.json.
        recipe: its recipe.
        values: by name; undefined ones, NaN, are left out.
    """
    if not recipe.loggers:
        return
    loggers = Loggers(run)
    try:
        check_installed(recipe.loggers)
        loggers.open(recipe)
    except SightlineError as error:
        LOG.warning("the values are in the run folder alone: %s", error)
        return
    loggers.close("success", {key.replace("@", "/"): value for key, value in values.items() if value == value})
