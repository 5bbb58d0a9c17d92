"""Tables as CSV text."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]], line_end: str = "\r\n") -> str:
    """Return a table as CSV text; a row that is a mapping is read by the header's names, and a missing value is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end)
    writer.writerow(header)
    for row in rows:
        writer.writerow([row.get(name, "") for name in header] if isinstance(row, Mapping) else row)
    return text.getvalue()
