"""Find files, and the errors of files that cannot be read."""

import os
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import MissingFileError, SightlineError


class UnreadableFileError(SightlineError):
    """A file that is missing, truncated or not an image."""


class UnclearFileError(SightlineError):
    """A file that can be decoded, but whose values have no clear meaning."""


def locate(path: str | Path, argument: str) -> Path:
    """Return the file or folder with this name, relative to the current folder or to the folder named by SIGHTLINE_DATA.

    Args:
        path: absolute, relative, or starting with `~`.
        argument: whose value this is, for the message.

    Raises:
        MissingFileError: there is nothing in either place.
    """
    wanted = Path(path).expanduser()
    base = os.environ.get("SIGHTLINE_DATA")
    places = [wanted, Path(base, wanted)] if base and not wanted.is_absolute() else [wanted]
    for place in places:
        try:
            if place.exists():
                return place
        except OSError as error:  # such as a name that is too long
            raise MissingFileError(f"{argument}: {str(place)[:200]!r} cannot be opened: {error.strerror}") from error
    raise MissingFileError(f"{argument}: nothing at {' or '.join(map(str, places))}")


def locate_layout(root: str | Path, marker: str, folders: Sequence[str], expected: str) -> Path:
    """Return the folder of a data set, or the first folder in it of these names, that holds a file as its layout has it.

    Raises:
        SightlineError: there is no such file.
    """
    base = locate(root, "root")
    for place in (base, *(base / folder for folder in folders)):
        if (place / marker).is_file():
            return place
    raise SightlineError(f"root: {base} has no {marker}; expected {expected}")
