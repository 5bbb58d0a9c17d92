"""tests.csv: paired differences, one row per pair."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sightline.evaluation.grid_folder.cells import Cell
from sightline.evaluation.grid_folder.rows import read_number, read_rows, write_rows
from sightline.statistics.pairs import PairedTest

FILE = "tests.csv"
NUMBERS = ("difference", "low", "high", "p", "p_holm", "n")
COLUMNS = ("metric", "model", "explainer", "against_model", "against_explainer", *NUMBERS)


def paired_tests_csv(tests: Iterable[tuple[tuple[Cell, Cell], PairedTest]]) -> bytes:
    """Return the tests of pairs of cells of one metric as CSV."""
    return write_rows(
        COLUMNS,
        (
            {
                "metric": first.metric, "model": first.model, "explainer": first.explainer,
                "against_model": second.model, "against_explainer": second.explainer, **vars(test),
            }
            for (first, second), test in tests
        ),
    )  # fmt: skip


def read_paired_tests(path: Path) -> dict[tuple[Cell, Cell], PairedTest]:
    """Return (first cell, second cell) -> their paired test."""
    tests = {}
    for line, row in read_rows(path, COLUMNS):
        first = Cell(row["model"], row["explainer"], row["metric"])
        second = Cell(row["against_model"], row["against_explainer"], row["metric"])
        *numbers, n = (read_number(row, key, path, line) for key in NUMBERS)
        difference, low, high, p, p_holm = numbers
        tests[first, second] = PairedTest(difference, low, high, p, int(np.nan_to_num(n)), p_holm)
    return tests
