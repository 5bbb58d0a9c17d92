"""The command `sightline`. `sightline.cli.app` holds the commands; `main` runs them and reports errors."""

import signal
import sys
from contextlib import suppress

from sightline._core.allocator import keep_freed_memory
from sightline._core.optional import requires_extra
from sightline._core.processes import LauncherError, launched
from sightline._core.shared_work import reports_errors
from sightline._core.signals import TerminatedError, terminable
from sightline.errors import NonFiniteLossError, RunFailedError, SightlineError


def main() -> None:
    """Run the command. Bad input prints one line to stderr and exits with 2; a run that fails exits with 1.

    A command that is interrupted says how to continue, and exits with 130, or 143 after SIGTERM.
    """
    try:
        with requires_extra("cli", "the command sightline"):
            from sightline.cli.app import InterruptedCommandError, app
    except SightlineError as error:
        _report("error:", str(error))
        sys.exit(2)
    keep_freed_memory()
    try:
        with terminable():
            app()
    except InterruptedCommandError as error:
        ended = "another process has ended, or torchrun was stopped; " if launched() is not None else ""
        _report("interrupted:", f"{ended}{error}")
        sys.exit(128 + (signal.SIGTERM if isinstance(error.__cause__, TerminatedError) else signal.SIGINT))
    except SightlineError as error:
        _report("error:", str(error), everywhere=isinstance(error, LauncherError))
        sys.exit(1 if isinstance(error, NonFiniteLossError | RunFailedError) else 2)
    except OSError as error:  # of a file that no reader or writer of ours has named
        _report("error:", f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)


def _report(label: str, message: str, *, everywhere: bool = False) -> None:
    """Print an error on one process, or on each one where none may be the first."""
    with suppress(LauncherError):
        if not everywhere and not reports_errors():
            return
    print(f"\033[1;31m{label}\033[0m" if sys.stderr.isatty() else label, message, file=sys.stderr)
