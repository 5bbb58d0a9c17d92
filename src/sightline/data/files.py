"""Find files and list images in folders."""

import os
from pathlib import Path

from sightline.errors import MissingFileError, SightlineError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


class UnreadableFileError(SightlineError):
    """A file that is missing, truncated or not an image."""


class UnclearFileError(SightlineError):
    """A file that can be decoded, but whose values have no clear meaning."""


def locate(path: str | Path, argument: str) -> Path:
    """The file or folder of that name, seen from here or else from the folder that SIGHTLINE_DATA names.

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
        if place.exists():
            return place
    raise MissingFileError(f"{argument}: nothing at {' or '.join(map(str, places))}")


def list_images(folder: Path) -> list[Path]:
    """Every picture under a folder, at any depth, in a fixed order; hidden files are left out."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )
