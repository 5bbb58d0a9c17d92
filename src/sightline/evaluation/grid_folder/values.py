"""table.csv: one row per value."""

from pathlib import Path

import numpy as np

from sightline.errors import SightlineError
from sightline.evaluation.grid_folder.cells import Cell, Value
from sightline.evaluation.grid_folder.rows import read_number, read_rows

FILE = "table.csv"
NUMBERS = ("value", "low", "high", "n")
DIRECTIONS = {"true": True, "false": False}


def read_values(path: Path) -> tuple[dict[Cell, Value], dict[str, bool]]:
    """Return the values, and metric -> whether higher is better, both in the order of the table."""
    values: dict[Cell, Value] = {}
    directions: dict[str, bool] = {}
    for line, row in read_rows(path, ("model", "explainer", "metric", *NUMBERS, "higher_is_better")):
        cell = Cell(row["model"], row["explainer"], row["metric"])
        if cell in values:
            raise SightlineError(f"{path}, line {line}: a second value of {cell}")
        higher = DIRECTIONS.get(row["higher_is_better"].lower())
        if higher is None:
            raise SightlineError(f"{path}, line {line}: higher_is_better is {row['higher_is_better']!r}; True or False")
        if directions.setdefault(cell.metric, higher) != higher:
            raise SightlineError(f"{path}, line {line}: {cell.metric} changes its direction")
        value, low, high, n = (read_number(row, key, path, line) for key in NUMBERS)
        values[cell] = Value(value, low, high, int(np.nan_to_num(n)))
    return values, directions
