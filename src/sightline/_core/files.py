"""Files and folders that are complete or unchanged, also after a kill, a power cut or a full disk."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sightline.errors import SightlineError, UnwritableError

LOCK = ".lock"
LEFT_OVER = re.compile(r"\..+\.[0-9a-f]{12}\.(tmp(\.[^.]*)?|old)|\.(.+\.)?lock")
"""Names that a killed process leaves: temporary files and folders, what one of them was to replace, and locks."""
ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{12}\.old")
FULL = (errno.ENOSPC, errno.EDQUOT)

ADVICE = {
    errno.ENOSPC: "free some space, and give the command again",
    errno.EDQUOT: "free some space, and give the command again",
    errno.EFBIG: "the file system or a limit does not allow a file of this size; name another output",
    errno.EROFS: "name another output",
    errno.EACCES: "name another output, or change its permissions",
    errno.EPERM: "name another output, or change its permissions",
    errno.ENOTDIR: "a part of the path is a file; name another output",
    errno.EEXIST: "a file exists already where a folder must be; name another output",
    errno.EISDIR: "a folder has the name of the file; name another output",
    errno.ENOENT: "its folder does not exist, or was removed meanwhile",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system rejects into one error that names the file and says what to do.

    Raises:
        UnwritableError: the system cannot write the file.
    """
    try:
        yield
    except UnwritableError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UnwritableError:
    """Return the error for a file that the system cannot write."""
    advice = ADVICE.get(error.errno or 0)
    return UnwritableError(f"cannot write {path}: {error.strerror or error}{f'; {advice}' if advice else ''}")


def make_folder(folder: Path) -> None:
    """Make a folder with its parents where it is missing.

    Raises:
        UnwritableError: the folder cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file; its folder must exist.

    Raises:
        UnwritableError: the file cannot be written. The old file is unchanged, and no other file is left.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a temporary name with the same suffix in the same folder; the file written there replaces `path` at the end.

    The file is forced to the disk before it gets its name. No two writers share a temporary name.

    Raises:
        UnwritableError: the file cannot be written. The old file is unchanged, and no other file is left.
    """
    temporary = temporary_path(path)
    with writing(path):
        try:
            yield temporary
            _force(temporary)
            temporary.replace(path)
        finally:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)
        _force_folder(path.parent)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a new temporary folder next to `folder`, and put it instead of `folder` at the end.

    Only one process at a time may replace a folder. What an earlier one left when it was killed is cleared first. A symbolic
    link stays: the folder that it names is replaced.

    Raises:
        UnwritableError: a file cannot be written. The old folder is unchanged, and nothing else is left.
    """
    with writing(folder):
        folder = Path(os.path.realpath(folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_left_by(folder)
        temporary = temporary_path(folder)
        try:
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _force(file)
            _exchange(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _force_folder(folder.parent)


def temporary_path(path: Path) -> Path:
    """Return a new hidden name with the suffix of a file, next to the file."""
    return path.with_name(f".{_short(path)}.{secrets.token_hex(6)}.tmp{path.suffix}")


def _short(path: Path) -> str:
    return path.stem[:50]  # a longer name might be too long with what is added to it


def clear_left_over(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder; the caller must be the only one who writes there.

    A folder that one of them had moved aside gets its name back.
    """
    for place, folders, names in os.walk(folder):
        found = [Path(place, name) for name in (*folders, *names) if LEFT_OVER.fullmatch(name) and name != LOCK]
        _clear(found)
        # Another process may be writing to a folder with its own lock.
        folders[:] = [
            name for name in folders if not LEFT_OVER.fullmatch(name) and not Path(place, name, LOCK).exists()
        ]


def clear_left_by(path: Path) -> None:
    """Remove temporary files of one output that killed processes left next to it, as `clear_left_over` does."""
    _clear([file for file in _entries(path.parent) if _is_left_by(file.name, path)])


def is_new(folder: Path, without: Collection[str] = ()) -> bool:
    """Return whether a folder is missing, or holds only what a process leaves that is killed before its first file.

    Args:
        folder: The folder.
        without: Names of folders in it that do not count.
    """
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    for _, folders, names in os.walk(folder):
        if not all(LEFT_OVER.fullmatch(name) for name in names):
            return False
        folders[:] = [name for name in folders if name not in without and not LEFT_OVER.fullmatch(name)]
    return True


def check_new(output: Path, otherwise: str = "exists already; choose another") -> None:
    """Reject an output that is not new."""
    if not is_new(output):
        raise SightlineError(f"output {output} {otherwise}")


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_left_by(name: str, path: Path) -> bool:
    stem, suffix, whole = re.escape(_short(path)), re.escape(path.suffix), re.escape(path.name)
    return re.fullmatch(rf"\.{stem}(\.[0-9a-f]+)?\.tmp{suffix}|\.{whole}\.[0-9a-f]+\.old", name) is not None


def _clear(paths: list[Path]) -> None:
    for path in paths:
        aside = ASIDE.fullmatch(path.name)
        if aside and not (moved := path.with_name(aside[1])).exists():
            path.rename(moved)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _exchange(temporary: Path, folder: Path) -> None:
    """Put the new folder in the old one's place."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _force(file: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def _force_folder(folder: Path) -> None:
    if os.name == "posix":  # where a new name, too, has to be forced to the disk
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
