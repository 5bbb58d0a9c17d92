"""What was finished of a long pass, kept line by line, so that a pass that was killed goes on."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.errors import RunFailedError, SightlineError


class ProgressLog:
    """A file of JSON lines: what is worked on, then one line for each finished item, in order.

    A line that a kill cut short is thrown away.

    Args:
        path: the file; begun if it is not there.
        facts: what is worked on, as JSON values.

    Attributes:
        entries: what was finished.

    Raises:
        SightlineError: the file is of other work (the message says what differs), or cannot be read or written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        wanted = json.loads(json.dumps(facts))  # as it is read back
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            known, *self.entries = [json.loads(line) for line in whole.splitlines()] or [None]
            for name in {**wanted, **known} if isinstance(known, dict) else ():
                if known.get(name) != wanted.get(name):
                    raise SightlineError(
                        f"{path} is of other work: {name} is {known.get(name)!r} there and {wanted.get(name)!r} here; "
                        "name another output, or remove it"
                    )
            if len(whole) < len(content):
                os.truncate(path, len(whole))
            if known is None:
                self._append([wanted])
        except OSError as error:
            raise SightlineError(f"cannot write {path}: {error.strerror or error}") from error
        except json.JSONDecodeError as error:
            raise SightlineError(f"{path} is no journal of an earlier pass: {error}") from error

    def add(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Keep what was finished.

        Raises:
            RunFailedError: the disk does not take it; what was finished before is kept.
        """
        try:
            self._append(entries)
        except OSError as error:
            raise RunFailedError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.entries += entries

    def _append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
            file.flush()
            os.fsync(file.fileno())
