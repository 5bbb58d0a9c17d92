"""Files that Git LFS has not fetched: small texts instead of the content."""

from pathlib import Path

from sightline.errors import SightlineError


def refuse_pointer(path: Path) -> None:
    """Reject a file that is a pointer of Git LFS.

    Raises:
        SightlineError: it is one; the message says how to fetch the content.
    """
    with path.open("rb") as file:
        if file.read(42) == b"version https://git-lfs.github.com/spec/v1":
            raise SightlineError(f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
