"""Folders of evaluations, read and put together; every damaged file is named."""

import csv

import numpy as np
import pytest

from grid_folders import N, noise, settled, write_grid
from sightline import SightlineError
from sightline.evaluation.grid_folder import Cell, read_evaluations
from sightline.evaluation.ranking import ranking_tables


def test_folders_of_one_model_are_put_together_and_tested_again(tmp_path):
    values = settled()
    whole = ranking_tables(read_evaluations([write_grid(tmp_path / "whole", values)]))[0]
    one = write_grid(tmp_path / "one", {k: v for k, v in values.items() if k[1] in ("Random-CAM", "A")})
    two = write_grid(tmp_path / "two", {k: v for k, v in values.items() if k[1] in ("Random-CAM", "B", "C")})
    evaluations = read_evaluations([one, two])
    merged = ranking_tables(evaluations)[0]
    assert (
        "Several folders contain these results, and the first of them is used: Random-CAM on net." in evaluations.notes
    )
    assert merged.rows == whole.rows
    for metric in ("insertion", "deletion"):
        for first in "ABC":
            assert merged.mark(first, metric) == whole.mark(first, metric)
            assert merged.compare_rows(metric, first, "Random-CAM").n == N
    pair = Cell("net", "A", "insertion"), Cell("net", "B", "insertion")
    assert evaluations.tests[pair].p_holm == pytest.approx(6 * evaluations.tests[pair].p)  # the least of six pairs


def test_folders_that_do_not_fit_are_rejected_or_noted(tmp_path):
    one = write_grid(tmp_path / "one", {("net", "A", "insertion"): noise(0)})
    other_data = write_grid(tmp_path / "two", {("net", "B", "insertion"): noise(1)}, prefix="elsewhere/")
    with pytest.raises(SightlineError, match=r"hold net on different data: image 0 is images/0.jpg in one"):
        read_evaluations([one, other_data])
    other_net = write_grid(tmp_path / "three", {("net", "B", "insertion"): noise(1)}, predicted=1)
    assert any("what net predicts for 40 of 40 images" in note for note in read_evaluations([one, other_net]).notes)
    with pytest.raises(SightlineError, match="folders is empty"):
        read_evaluations([])


@pytest.mark.parametrize("name", ["table.csv", "tests.csv", "curves.csv", "samples.parquet", "study.yaml"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_grid(tmp_path / "grid", settled())
    (folder / name).unlink()
    with pytest.raises(SightlineError, match=rf"grid.*{name}"):
        read_evaluations([folder])


@pytest.mark.parametrize(("name", "column"), [("table.csv", "value"), ("tests.csv", "p_holm")])
def test_a_missing_column_is_named(tmp_path, name, column):
    path = write_grid(tmp_path / "grid", settled()) / name
    path.write_text(path.read_text().replace(f",{column},", ",colour,", 1))
    with pytest.raises(SightlineError, match=rf"{name} has no column {column}; it has .*colour"):
        read_evaluations([path.parent])


def test_value_that_is_not_a_number_is_named_by_its_line(tmp_path):
    folder = write_grid(tmp_path / "grid", settled())
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[2][3] = "much"
    (folder / "table.csv").write_text("\n".join(map(",".join, rows)))
    with pytest.raises(SightlineError, match="line 3: value is 'much'"):
        read_evaluations([folder])


@pytest.mark.parametrize("damage", ["samples.parquet", "gallery.safetensors"])
def test_a_damaged_file_is_named(tmp_path, damage):
    folder = write_grid(tmp_path / "grid", settled())
    (folder / damage).write_bytes(b"not what it says")
    with pytest.raises(SightlineError, match=f"cannot read {folder / damage}"):
        read_evaluations([folder])


def test_a_folder_without_values_is_rejected(tmp_path):
    folder = write_grid(tmp_path / "nan", {("net", "A", "insertion"): [np.nan] * 4})
    with pytest.raises(SightlineError, match="no metric is defined"):
        read_evaluations([folder])
    (folder / "table.csv").write_text("\r\n")  # as `reproduce` leaves it before the first part is done
    with pytest.raises(SightlineError, match=r"table\.csv has no values yet"):
        read_evaluations([folder])
