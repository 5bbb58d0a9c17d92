"""What a person sees while a run trains: one bar with the time that remains, and a line for every epoch."""

from sightline._core.progress import ProgressBar


class Display(ProgressBar):
    """A progress bar over a run's optimiser steps; where the output is no terminal, the lines alone.

    Args:
        steps: of the whole run.
        epochs: of the whole run.
        visible: False on all processes but the first.
    """

    def __init__(self, steps: int, epochs: int, visible: bool) -> None:
        super().__init__(visible, "", steps)
        self._epochs = epochs

    def epoch(self, number: int) -> None:
        """Note that an epoch begins, counted from 1."""
        self.update(description=f"epoch {number}/{self._epochs}")

    def step(self, loss: float) -> None:
        """Note that an optimizer step is done."""
        self.update(advance=1, text=f"loss {loss:.4f}")

    def at(self, step: int) -> None:
        """Note that a stage begins, or continues, after this many of the run's steps."""
        self.update(completed=step)

    def row(self, row: dict[str, float | int]) -> None:
        """Note that an epoch is done, with its values."""
        accuracies = [key for key in row if key.endswith(("/accuracy", "/worst_group_accuracy"))]
        shown = ["train/loss", "train/accuracy", *accuracies]
        values = "  ".join(f"{key} {row[key]:.4g}" for key in dict.fromkeys(shown))
        line = f"epoch {row['epoch']}/{self._epochs}  {values}  {row['seconds']:.1f} s"
        self.print(line)
