"""`sightline export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    formats: Annotated[
        str, typer.Option(help="Formats, joined by commas; onnx needs the extra `export`.")
    ] = "state-dict,torch-export,onnx",
) -> None:
    """Write a run's model as files that load without sightline; model.json has the lines that load them.

    Example: sightline export runs/so-loss-seed0
    """
    from sightline.exporting import export_run

    typer.echo(export_run(run, output, formats.split(",")))
