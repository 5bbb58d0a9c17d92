"""The command `sightline`. `sightline.cli.app` holds the commands; `main` runs them and reports errors."""

import sys

from sightline._core.optional import requires_extra
from sightline._core.processes import is_first_process
from sightline.errors import NonFiniteLossError, RunFailedError, SightlineError


def main() -> None:
    """Run the command. Bad input prints one line to stderr and exits with 2; a run that fails exits with 1."""
    try:
        with requires_extra("cli", "the command sightline"):
            from sightline.cli.app import app
        app()
    except SightlineError as error:
        if is_first_process():
            label = "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"
            print(label, error, file=sys.stderr)
        sys.exit(1 if isinstance(error, NonFiniteLossError | RunFailedError) else 2)
