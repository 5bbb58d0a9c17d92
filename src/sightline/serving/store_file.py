"""An SQLite file that a page writes to: what is written is on the disk, and a lost file is an error."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sightline._core.files import make_folder, replacing_file
from sightline.errors import RunFailedError, SightlineError


class NameTakenError(SightlineError):
    """Another person has that name."""


class StoreUnavailableError(RunFailedError, sqlite3.OperationalError):
    """The file cannot be read or written now; nothing was acknowledged."""


class StoreFile:
    """An open SQLite file. What a method has written is on the disk when it returns.

    A subclass names what the file holds in `what`, says in `missing` what to do where there is none, and reads the rest in
    `_open`.

    Args:
        path: the file; `create_file` makes it.

    Raises:
        SightlineError: there is no such file, or it holds something else.
        StoreUnavailableError: also raised by the methods; the disk is full, or the file was removed.
    """

    what: ClassVar[str]
    missing: ClassVar[str]

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SightlineError(f"there is no {self.what} at {path}; {self.missing}")
        self.path = path
        # Requests come in several threads; the lock lets one at a time to the connection.
        self._lock = threading.Lock()
        try:
            self._file = _identity(path)
            self._connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"cannot open the {self.what} {path}: {error}") from error
        try:
            # A commit waits for the disk, so neither a kill nor a power cut takes what was acknowledged.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._open()
        except (sqlite3.Error, RunFailedError, ValueError, KeyError) as error:
            self._connection.close()
            raise SightlineError(
                f"{path} is not a {self.what}, or it is damaged: {error}; restore the file, or choose another folder"
            ) from error

    def _open(self) -> None:
        """Read what stays in memory; an error says that the file holds something else."""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _read(self, query: str, *values: Any) -> list[Any]:
        """Return all rows of a query; a single mapping gives named values."""
        named = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
        with self._available():
            return self._connection.execute(query, named).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._available():
            with self._connection:
                yield self._connection
            self._check_file()  # a commit to a removed file succeeds, and nobody can read it

    @contextmanager
    def _available(self) -> Iterator[None]:
        with self._lock:
            try:
                self._check_file()
                yield
            except sqlite3.IntegrityError:
                raise
            except (sqlite3.Error, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise StoreUnavailableError(f"cannot use the {self.what} {self.path}: {reason}") from error

    def _check_file(self) -> None:
        if _identity(self.path) != self._file:
            raise sqlite3.OperationalError("another file has taken its place")


def create_file(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make an SQLite file that its owner alone can read; it appears when it is whole.

    Args:
        path: the file; its folder is made where it is missing.
        fill: writes the tables.

    Raises:
        RunFailedError: the file cannot be written.
    """
    make_folder(path.parent)
    with replacing_file(path) as temporary:
        # The file holds the token; its journal inherits the mode.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with closing(sqlite3.connect(temporary)) as connection, connection:
                fill(connection)
        except sqlite3.Error as error:
            raise RunFailedError(f"cannot write {path}: {error}") from error
        finally:
            temporary.with_name(f"{temporary.name}-journal").unlink(missing_ok=True)


def now() -> str:
    """Return the time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
