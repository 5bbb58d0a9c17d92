"""The CSV files of a table of evaluations: errors name the file, the line and the column."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline._core.csv_files import csv_text
from sightline._core.reading import reading
from sightline.errors import SightlineError

MADE_BY = "`sightline evaluate PLAN.yaml` and `sightline reproduce` make such folders"


def write_rows(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as a CSV file."""
    short = ({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    return csv_text(columns, short).encode()


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file with their line numbers; none for a file that has no header yet."""
    with reading(path):
        text = path.read_text(encoding="utf-8")
    if not text.strip():
        return []
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    require_columns(path, reader.fieldnames or [], columns)
    with reading(path):
        return [(reader.line_num, row) for row in reader]


def read_number(row: Mapping[str, str], column: str, path: Path, line: int) -> float:
    """Return the number in a column of a row, NaN for an empty cell."""
    text = row[column]
    try:
        return float(text) if text else np.nan
    except ValueError:
        raise SightlineError(f"{path}, line {line}: {column} is {text!r}; expected a number") from None


def require_columns(path: Path, have: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise an error that names the missing columns."""
    if missing := [name for name in wanted if name not in have]:
        raise SightlineError(f"{path} has no column {', '.join(missing)}; it has {', '.join(have)} ({MADE_BY})")
