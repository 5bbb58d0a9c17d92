"""What a person sees while a run trains: one bar with the time that remains, and a line for every epoch."""

from types import TracebackType
from typing import Self

from sightline._core.progress import ProgressBar


class Display:
    """A progress bar over a run's optimiser steps; where the output is no terminal, the lines alone.

    Args:
        steps: of the whole run.
        epochs: of the whole run.
        visible: False on all processes but the first.
    """

    def __init__(self, steps: int, epochs: int, visible: bool) -> None:
        self._epochs = epochs
        self._bar = ProgressBar(visible, "", steps)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def epoch(self, number: int) -> None:
        """Note that an epoch begins, counted from 1."""
        self._bar.update(description=f"epoch {number}/{self._epochs}")

    def step(self, loss: float) -> None:
        """Note that an optimizer step is done."""
        self._bar.update(advance=1, text=f"loss {loss:.4f}")

    def at(self, step: int) -> None:
        """Note that a stage begins, or continues, after this many of the run's steps."""
        self._bar.update(completed=step)

    def note(self, line: str) -> None:
        """Say something above the bar."""
        self._bar.print(line)

    def row(self, row: dict[str, float | int]) -> None:
        """Note that an epoch is done, with its values."""
        accuracies = [key for key in row if key.endswith(("/accuracy", "/worst_group_accuracy"))]
        shown = ["train/loss", "train/accuracy", *accuracies]
        figures = "  ".join(f"{key} {row[key]:.4g}" for key in dict.fromkeys(shown))
        line = f"epoch {row['epoch']}/{self._epochs}  {figures}  {row['seconds']:.1f} s"
        self._bar.print(line)
