"""What a person sees of long work: one bar with the time that remains, on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(visible: bool, *columns: TextColumn) -> Progress:
    """A bar with counts and times on stderr, and with further columns; nothing where stderr is no terminal.

    Args:
        visible: False for processes other than the first.
        columns: shown after the counts.
    """
    console = Console(stderr=True, quiet=not visible)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not (visible and console.is_terminal),
        transient=True,
    )


@contextmanager
def bar(visible: bool, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over one task; gives a function that advances it."""
    with progress_bar(visible) as shown:
        task = shown.add_task(description, total=total)
        yield lambda steps: shown.advance(task, steps)
