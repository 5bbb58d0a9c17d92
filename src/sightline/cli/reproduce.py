"""`sightline reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.options import Devices, split_devices


def reproduce(
    paper: Annotated[str, typer.Argument(help="Short name of the paper, such as lots.")],
    item: Annotated[str, typer.Argument(help="A table or figure, such as table-5.3 (`sightline list recipes`).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as data.path=images.csv.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Share of the images or repetitions, in (0, 1].")] = 1.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write. [default: runs/reproduce/PAPER/ITEM]")
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search", help="Run the paper's hyperparameter search, and train with the best values (impactx table-2)."
        ),
    ] = False,
    devices: Devices = None,
) -> None:
    """Compute a table or figure of a paper, next to the printed values. To resume an interrupted command, run it again.

    Example: sightline reproduce lots table-5.3
    """
    from sightline import studies

    folder = studies.reproduce(
        paper, item, overrides or [], scale=scale, output=output, search=search, devices=split_devices(devices)
    )
    typer.echo(folder / "report.md")
