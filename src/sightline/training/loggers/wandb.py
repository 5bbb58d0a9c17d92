"""Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from sightline.runs.run import Run


class WandbLogger:
    """A run of Weights & Biases, with the epoch as its axis.

    Args:
        run: whose folder gets W&B's local files, and whose name the run there has.
        version: id of the run to continue with; None = a new one.
        project: where it is listed.
        options: of `wandb.init`, such as `entity`, `tags` or `mode: offline`.
    """

    def __init__(self, *, run: Run, version: str | None, project: str = "sightline", **options: Any) -> None:
        import wandb

        given: dict[str, Any] = {"project": project, "name": run.path.name, "dir": run.path, **options}
        # A run of the caller's own, in the same process, is not ours to write to.
        self._run = wandb.init(id=version, resume="allow", reinit="create_new", **given)
        self._id = self._run.id
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

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
