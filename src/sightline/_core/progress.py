"""A progress bar with the remaining time, shown on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sightline._core.shared_work import processes

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar:
    """Show the progress of one task on stderr, and lines of text above the bar.

    Without a terminal, or without the package rich, there is no bar, and the lines are printed.

    Args:
        visible: Whether to show the bar. An invisible bar prints no lines. Of several processes that share work, the first
            one shows it.
        description: Text before the bar.
        total: Number of steps; None if it is unknown.
        completed: Number of steps that are done already.
    """

    def __init__(self, visible: bool, description: str, total: int | None, completed: int = 0) -> None:
        self._visible = visible and processes().is_first
        self._stderr = sys.stderr  # kept, so a redirection that comes later does not move the bar
        self._bar = _rich_bar() if self._visible and sys.stderr.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(description, total=total, completed=completed, text="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: float = 1) -> None:
        """Add finished steps."""
        self.update(advance=steps)

    def update(self, **changes: Any) -> None:
        """Change `description`, `completed`, or the `text` after the counts."""
        if self._bar is not None:
            self._bar.update(self._task, **changes)

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif self._visible:
            print(line, file=self._stderr)


@contextmanager
def bar(visible: bool, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar over one task. Yields the function that advances it."""
    with ProgressBar(visible, description, total) as shown:
        yield shown.advance


def _rich_bar() -> "Progress | None":
    """Return an unstarted bar with counts and times, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ModuleNotFoundError:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
