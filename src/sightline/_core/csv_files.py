"""Tables as CSV text."""

import csv
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import SightlineError


def read_csv(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval="")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SightlineError(f"cannot read {path}: {error}") from error
    for column in required:
        if column not in (reader.fieldnames or ()):
            raise SightlineError(f"{path} has the columns {reader.fieldnames}; {column!r} is missing")
    return rows
