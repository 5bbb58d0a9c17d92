"""What was finished of a long pass, kept line by line, so a pass that was killed continues."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline._core.files import make_folder, writing
from sightline.errors import SightlineError

INDEX = "index"


class ProgressLog:
    """A file of JSON lines: what is worked on, then one line for each finished image, with the image's index.

    A line that a kill cut short is thrown away. Only one process at a time may open the file.

    Args:
        path: the file; begun if it does not exist.
        facts: what is worked on, as JSON values.

    Attributes:
        entries: what was finished, by the index of the image.

    Raises:
        SightlineError: the file is of other work (the message says what differs), or is damaged.
        RunFailedError: the file cannot be written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        wanted = json.loads(json.dumps(facts))  # in the form that JSON reads back
        make_folder(path.parent)
        with writing(path):
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            known, self.entries = _parse(path, whole)
            for name in {**wanted, **known} if whole else ():
                if known.get(name) != wanted.get(name):
                    raise SightlineError(
                        f"{path} belongs to other work: {name} is {known.get(name)!r} there and {wanted.get(name)!r} here; "
                        "choose another output, or remove it"
                    )
            if len(whole) < len(content):
                os.truncate(path, len(whole))
        if not whole:
            self._append([wanted])

    def add(self, entries: Mapping[int, Mapping[str, Any]]) -> None:
        """Keep what was finished, by the index of the image.

        Raises:
            RunFailedError: the disk does not take it; what was finished before is kept.
        """
        self._append([{INDEX: index, **entry} for index, entry in entries.items()])
        self.entries |= entries

    def _append(self, lines: list[Mapping[str, Any]]) -> None:
        with writing(self.path), self.path.open("ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())


def read_progress(path: Path) -> tuple[dict[str, Any], dict[int, Any]]:
    """Return what a log is of, and its entries by the index of the image.

    Raises:
        SightlineError: the file is damaged.
    """
    return _parse(path, path.read_bytes())


def _parse(path: Path, content: bytes) -> tuple[dict[str, Any], dict[int, Any]]:
    entries: dict[int, Any] = {}
    facts: dict[str, Any] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            if number == 1:
                facts = dict(json.loads(line))
            else:
                entry = dict(json.loads(line))
                entries[int(entry.pop(INDEX))] = entry
        except (ValueError, TypeError, KeyError) as error:
            raise SightlineError(
                f"{path}, line {number}: not an entry of this log ({error}); remove the file to start from scratch"
            ) from error
    return facts, entries
