"""curves.csv: mean curves, one row per point."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sightline.evaluation.grid_folder.cells import Cell
from sightline.evaluation.grid_folder.rows import read_number, read_rows, write_rows
from sightline.statistics.bootstrap import Array

FILE = "curves.csv"
COLUMNS = ("model", "explainer", "metric", "share", "value")


def curves_csv(points: Iterable[tuple[Cell, float, float]]) -> bytes:
    """Return points of curves as CSV: the cell, the share of the pixels, and the mean value at it."""
    return write_rows(COLUMNS, ({**cell._asdict(), "share": share, "value": value} for cell, share, value in points))


def read_curves(path: Path) -> dict[Cell, Array]:
    """Return cell -> (2, points): shares of the pixels, and the mean value at each."""
    points: dict[Cell, list[tuple[float, float]]] = {}
    for line, row in read_rows(path, COLUMNS):
        share, value = (read_number(row, key, path, line) for key in ("share", "value"))
        points.setdefault(Cell(row["model"], row["explainer"], row["metric"]), []).append((share, value))
    return {cell: np.array(some).T for cell, some in points.items()}
