"""The part of Lightning Fabric's logger interface that training uses."""

from typing import Any, Protocol


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
