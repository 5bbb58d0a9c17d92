"""List the images of a folder, and say which ones are left out."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sightline.errors import SightlineError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2", ".j2k",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw",
    ".orf", ".rw2", ".dcm", ".exr", ".svg",
})  # fmt: skip
"""Names of image files end in these. Pillow, with the plugins that are registered, reads some of them."""

_JUNK = frozenset({"__macosx", "@eadir", "$recycle.bin", "lost+found", "__pycache__"})


@dataclass(frozen=True)
class Listing:
    """The images under a folder.

    Attributes:
        images: the files in a fixed order.
        left_out: for each reason, the image files that are not among them.
    """

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, reason: str, file: Path) -> None:
        """Add a file that is left out for a reason."""
        self.left_out.setdefault(reason, []).append(file)


def scan_images(folder: Path) -> Listing:
    """Find the images under a folder, at any depth; symbolic links are followed.

    Raises:
        SightlineError: a folder cannot be read.
    """
    listing = Listing()
    decoded = Image.registered_extensions()
    for file in _files(folder, ()):
        suffix = file.suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            continue
        if any(map(is_hidden, file.parts[len(folder.parts) :])):
            listing.leave_out("hidden", file)
        elif suffix not in decoded:
            listing.leave_out(f"of a kind that Pillow cannot read ({suffix}); convert them to PNG", file)
        else:
            listing.images.append(file)
    listing.images.sort()
    return listing


def list_images(folder: Path) -> list[Path]:
    """List the images under a folder as `scan_images` does, with a warning of those that are left out."""
    listing = scan_images(folder)
    warn_left_out(listing.left_out, folder)
    return listing.images


def warn_left_out(left_out: Mapping[str, Sequence[Path]], folder: Path) -> None:
    """Warn once of all files that are left out, with their number and an example for each reason."""
    if left_out:
        reasons = [
            f"{len(files)} {reason}, such as {os.path.relpath(min(files), folder)}"
            for reason, files in left_out.items()
        ]
        count = sum(map(len, left_out.values()))
        warnings.warn(f"{folder}: {count} files are left out: {'; '.join(reasons)}", stacklevel=3)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in _JUNK


def _files(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """Yield every file under a folder. A link to a folder above it is not followed, because that would never end."""
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        entries = [(Path(entry.path), entry.is_dir()) for entry in os.scandir(folder)]
    except OSError as error:
        raise SightlineError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    for path, is_folder in entries:
        if is_folder:
            yield from _files(path, (*above, here))
        else:
            yield path
