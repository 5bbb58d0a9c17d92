"""All commands in one Typer application. The module of a command imports what it needs when the command runs."""

from importlib import import_module
from typing import Annotated

import typer

from sightline._core.version import __version__

app = typer.Typer(
    name="sightline",
    help="Train image classifiers that look at the right thing, and measure whether they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    "train", "evaluate", "explain", "compare", "leaderboard", "diagnose", "audit", "filters", "boxes", "masks", "rate",
    "reproduce", "sweep", "acquire", "export", "data", "list", "demo",
)  # fmt: skip


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sightline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


for command in COMMANDS:
    module = import_module(f"sightline.cli.{command}")
    app.command(command, cls=getattr(module, "Command", None))(getattr(module, command))
