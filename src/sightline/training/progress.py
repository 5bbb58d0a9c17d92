"""What a person sees while a run trains: one bar with the time that remains, and a line for every epoch."""

from types import TracebackType
from typing import Self

from rich.progress import TextColumn

from sightline._core.progress import progress_bar


class Display:
    """A progress bar over a run's optimiser steps; where the output is no terminal, the lines alone.

    Args:
        steps: of the whole run.
        epochs: of the whole run.
        visible: False on all processes but the first.
    """

    def __init__(self, steps: int, epochs: int, visible: bool) -> None:
        self._epochs = epochs
        self._progress = progress_bar(visible, TextColumn("loss {task.fields[loss]}"))
        self._task = self._progress.add_task("", total=steps, loss="-")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def epoch(self, number: int) -> None:
        """An epoch begins, counted from 1."""
        self._progress.update(self._task, description=f"epoch {number}/{self._epochs}")

    def step(self, loss: float) -> None:
        """An optimiser step is done."""
        self._progress.update(self._task, advance=1, loss=f"{loss:.4f}")

    def at(self, step: int) -> None:
        """A stage begins, or goes on, after so many of the run's steps."""
        self._progress.update(self._task, completed=step)

    def row(self, row: dict[str, float | int]) -> None:
        """An epoch is done."""
        shown = ["train/loss", "train/accuracy", *(key for key in row if "/" in key and key.endswith("accuracy"))]
        figures = "  ".join(f"{key} {row[key]:.4g}" for key in dict.fromkeys(shown))
        line = f"epoch {row['epoch']}/{self._epochs}  {figures}  {row['seconds']:.1f} s"
        self._progress.console.print(line, highlight=False, soft_wrap=True)
