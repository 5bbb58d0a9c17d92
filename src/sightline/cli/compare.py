"""`sightline compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sightline.cli.options import ClassNames, Mean, Size, Std, split_given, split_numbers
from sightline.cli.subject import open_images
from sightline.errors import SightlineError


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
        list[str],
        typer.Argument(
            metavar="RUN... [KEY=VALUE]...", help="Run folders, or checkpoints. KEY=VALUE are options of --data."
        ),
    ],
    against: Annotated[list[str], typer.Option(metavar="RUN...", help="Run folders or checkpoints to compare with.")],
    model: Annotated[
        str | None, typer.Option(help="Model of the checkpoints where no run is given, as for `sightline evaluate`.")
    ] = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    classes: ClassNames = None,
    data: Annotated[
        str | None, typer.Option(help="Dataset of checkpoints without a run: a name, or a folder of images.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Compare two groups of evaluated runs in one self-contained HTML page.

    A checkpoint is measured as the first run was. Checkpoints without a run are measured on all images of --data.

    Example: sightline compare runs/so-loss-seed0 --against runs/plain-seed0 -o report.html
    """
    from sightline.reporting import comparison

    (ours, options), (theirs, more) = split_given(runs), split_given(against)
    images = None if data is None else open_images(data, [*options, *more])
    if data is None and (unused := [*options, *more]):
        raise SightlineError(f"{unused[0]} is an option of the data, and no data is named; give --data NAME")
    page = comparison.compare(
        ours, theirs, output, model=model, data=images, size=size, mean=split_numbers(mean, "--mean"),
        std=split_numbers(std, "--std"), classes=classes,
    )  # fmt: skip
    typer.echo(page)
