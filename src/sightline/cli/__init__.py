"""The command `sightline`: verbs only, no logic. Each verb's module imports what it needs when it runs."""

import sys
from importlib import import_module

import typer
from rich.console import Console
from rich.text import Text

from sightline.errors import NonFiniteLossError, RunFailedError, SightlineError

app = typer.Typer(
    name="sightline",
    help="Train image classifiers that look at the right thing, and measure whether they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
VERBS = (
    "train", "evaluate", "explain", "compare", "leaderboard", "diagnose", "audit", "filters", "boxes", "masks", "rate",
    "reproduce", "sweep", "acquire", "export", "data", "list", "demo",
)  # fmt: skip
for verb in VERBS:
    module = import_module(f"sightline.cli.{verb}")
    app.command(verb, cls=getattr(module, "Command", None))(getattr(module, verb))


def main() -> None:
    """Run the command. Bad input is one line on stderr and exit code 2; a run that failed under way, exit code 1."""
    try:
        app()
    except SightlineError as error:
        from lightning_fabric.utilities.rank_zero import rank_zero_only

        if getattr(rank_zero_only, "rank", 0) == 0:  # of several processes, one speaks
            message = Text.assemble(("error: ", "bold red"), str(error))
            Console(stderr=True, soft_wrap=True).print(message, highlight=False)
        sys.exit(1 if isinstance(error, NonFiniteLossError | RunFailedError) else 2)
