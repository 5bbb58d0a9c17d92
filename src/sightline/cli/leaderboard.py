"""`sightline leaderboard`."""

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders written by `evaluate PLAN.yaml` or `reproduce`.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write. [default: the first FOLDER]")
    ] = None,
) -> None:
    """Rank explainers per metric, and mark results at chance level, on one HTML page and in Markdown.

    Example: sightline leaderboard runs/reproduce/lots/table-5.2
    """
    from sightline.reporting.leaderboard import write_leaderboard

    for path in write_leaderboard(folders, output):
        typer.echo(path)
