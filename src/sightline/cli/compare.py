"""`sightline compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """Lets `--against` take every run that follows it, so a shell's wildcard can stand there."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its runs, as click reads it."""
        spread: list[str] = []
        against = False
        for arg in args:
            if arg.startswith("-"):
                against = arg.partition("=")[0] == "--against"
                spread += [] if arg == "--against" else [arg]
            else:
                spread += ["--against", arg] if against else [arg]
        return super().parse_args(ctx, spread)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or checkpoints of the same model."),
    ],
    against: Annotated[list[Path], typer.Option(metavar="RUN...", help="Run folders or checkpoints to compare with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Compare two groups of evaluated runs in one self-contained HTML page.

    Example: sightline compare runs/so-loss-seed0 --against runs/plain-seed0 -o report.html
    """
    from sightline.reporting import comparison

    typer.echo(comparison.compare(runs, against, output))
