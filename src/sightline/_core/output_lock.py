"""One process at a time writes to an output; another one is rejected with the name of the process that holds it."""

import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sightline._core.files import FULL, LOCK, clear_left_by, clear_left_over, unwritable, writing
from sightline.errors import OutputInUseError, SightlineError

BRIEF = 0.5  # seconds in which a process that is just ending releases its lock
LONG = 60.0  # seconds in which another process ends its writing of one output
ORPHANS = 15.0  # seconds in which the worker processes of a killed process end
UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextmanager
def holding_folder(folder: Path, wait: float = BRIEF) -> Iterator[None]:
    """Hold an output folder, made if it is missing, and clear the temporary files that killed processes left in it.

    The system releases the lock of a process that dies. A folder that was made here and is still empty is removed again.

    Args:
        folder: The output.
        wait: Seconds to wait for another process.

    Raises:
        SightlineError: The folder cannot be made.
        OutputInUseError: Another process holds the folder.
        UnwritableError: The folder cannot be written, or the disk is full.
    """
    with _made(folder), _holding(folder, folder / LOCK, wait):
        clear_left_over(folder)
        yield


@contextmanager
def holding_file(path: Path, wait: float = BRIEF) -> Iterator[None]:
    """Hold an output that is one file, or a folder that is replaced as a whole. As `holding_folder`; the lock is next to it."""
    with _made(path.parent), _holding(path, path.with_name(f".{path.name}{LOCK}"), wait):
        clear_left_by(path)
        yield


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; in the end remove the folders that were missing and are empty, the innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise unwritable(folder, error) from error
        raise SightlineError(str(unwritable(folder, error))) from error
    try:
        yield
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()


@contextmanager
def _holding(output: Path, file: Path, wait: float) -> Iterator[None]:
    lock = FileLock(file)
    with writing(file):
        taken = _take(lock, output, file, wait)
    try:
        if taken:
            with writing(file):
                file.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        yield
    finally:
        if taken:
            with suppress(OSError):  # removed before its release, so nobody else can hold the removed file
                file.unlink()
            lock.release()


def _take(lock: FileLock, output: Path, file: Path, wait: float) -> bool:
    """Take a lock; False where the file system has no locks."""
    holder = _read(file)
    try:
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            holder = _read(file) or holder
            if not _is_dead(holder):
                raise
            lock.acquire(timeout=ORPHANS)
    except Timeout:
        raise OutputInUseError(
            f"{output} is in use by {_named(holder)}; wait until that process ends, or name another output"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in UNSUPPORTED:
            raise
        warnings.warn(
            f"{output} is on a file system without locks; let one process at a time write to it", stacklevel=6
        )
        return False
    return True


def _read(file: Path) -> dict[str, Any]:
    try:
        holder = json.loads(file.read_text())
        return holder if isinstance(holder, dict) else {}
    except (OSError, ValueError):
        return {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this machine that has ended."""
    if os.name != "posix" or holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _named(holder: dict[str, Any]) -> str:
    if not {"pid", "host", "since"} <= holder.keys():
        return "another process"
    since = datetime.fromtimestamp(holder["since"]).isoformat(" ", "seconds")
    return f"process {holder['pid']} on {holder['host']} since {since}"
