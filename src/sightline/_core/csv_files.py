"""Tables as CSV text."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SightlineError

_MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "NaT", "None", "n/a", "nan", "null",
})  # fmt: skip


def is_missing(value: str) -> bool:
    """Return whether a value is empty, or a text that pandas writes or reads as a missing value, such as "nan"."""
    return value in _MISSING


def read_csv(path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file that has these columns, each with the number of its last line.

    Spaces around column names and values are left out.

    Raises:
        SightlineError: The file cannot be read, a column is missing or comes twice, or a row has more values than columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, strict=True)
            lines = [(reader.line_num, [value.strip() for value in row]) for row in reader if any(map(str.strip, row))]
    except UnicodeDecodeError as error:
        raise SightlineError(f"cannot read {path}: {error}; save it as UTF-8 (in a spreadsheet, CSV UTF-8)") from error
    except (OSError, csv.Error) as error:
        raise SightlineError(f"cannot read {path}: {error}") from error
    if not lines:
        raise SightlineError(f"{path} is empty; expected a line with the columns {', '.join(required)}")
    (_, columns), *rows = lines
    for column in required:
        if column not in columns:
            other = next((sign for sign in ";\t|" if len(columns) == 1 and sign in columns[0]), None)
            advice = f"; it is separated by {other!r}, and commas are expected" if other else ""
            raise SightlineError(f"{path} has the columns {columns}; {column!r} is missing{advice}")
    for column in columns:
        if columns.count(column) > 1:
            raise SightlineError(f"{path} has two columns {column!r}; rename or remove one")
    for line, values in rows:
        if len(values) > len(columns):
            raise SightlineError(f"{path}, line {line}: {len(values)} values for {len(columns)} columns; quote commas")
    return [(line, dict(zip(columns, values + [""] * (len(columns) - len(values))))) for line, values in rows]


def floats(column: Sequence[str]) -> NDArray[np.float64]:
    """Return the numbers of a column of a CSV file, NaN for an empty cell."""
    return np.array([float(cell) if cell else np.nan for cell in column])


def integers(column: Sequence[str]) -> NDArray[np.int64]:
    """Return the whole numbers of a column of a CSV file."""
    return np.array([int(cell) for cell in column], dtype=np.int64)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]], line_end: str = "\r\n") -> str:
    """Return a table as CSV text; a row that is a mapping is read by the header's names, and a missing value is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end)
    writer.writerow(header)
    for row in rows:
        writer.writerow([row.get(name, "") for name in header] if isinstance(row, Mapping) else row)
    return text.getvalue()
