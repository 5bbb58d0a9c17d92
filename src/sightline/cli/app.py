"""All commands in one Typer application. The module of a command imports what it needs when the command runs."""

import io
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer

from sightline._core.processes import LauncherError, launched
from sightline._core.shared_work import several_processes
from sightline._core.version import __version__

app = typer.Typer(
    name="sightline",
    help="Train image classifiers that use the object, and measure whether they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
RESUME = "run the same command again; it resumes after what is finished"
RESTART = "nothing was written; run the same command again"
COMMANDS = {  # command -> how to continue after Ctrl+C or SIGTERM
    "train": "run the same command again with --resume; it resumes after the last complete epoch",
    "evaluate": RESUME,
    "explain": RESUME,
    "compare": RESTART,
    "leaderboard": RESTART,
    "diagnose": RESTART,
    "audit": RESUME,
    "filters": RESTART,
    "boxes": RESUME,
    "masks": RESUME,
    "rate": "run the same command again; all votes are kept",
    "fix": "run the same command again; all marks are kept",
    "reproduce": RESUME,
    "sweep": RESUME,
    "acquire": RESUME,
    "export": RESTART,
    "data": "run the same command again",
    "list": "run the same command again",
    "demo": RESUME,
}

SHARED = ("evaluate", "explain", "diagnose", "reproduce")  # the processes that torchrun starts share the work of these
BY_DEVICES = ("train",)  # and of these as --devices says


class InterruptedCommandError(Exception):
    """A command was interrupted; the message says how to continue."""


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


def _shared(command: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let the processes that torchrun started share the work of a command, of which the first one prints the results."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        place = launched()
        if place is not None and command not in SHARED + BY_DEVICES:
            raise LauncherError(
                f"{place.size} processes were launched (WORLD_SIZE), and `sightline {command}` works in one; give the command "
                f"without torchrun. Several processes share the work of {', '.join(SHARED + BY_DEVICES)}"
            )
        if place is None or command not in SHARED:
            return function(*args, **options)
        with several_processes() as group, nullcontext() if group.is_first else redirect_stdout(io.StringIO()):
            return function(*args, **options)

    return run


def _saying_how_to_go_on(function: Callable[..., Any], advice: str) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except KeyboardInterrupt as error:  # here, because typer turns it into an exit silently
            raise InterruptedCommandError(advice) from error

    return run


for command, advice in COMMANDS.items():
    module = import_module(f"sightline.cli.{command}")
    work = _saying_how_to_go_on(_shared(command, getattr(module, command)), advice)
    app.command(command, cls=getattr(module, "Command", None))(work)
