"""What the writer of each file of a table writes, its reader reads."""

import numpy as np
import torch

from sightline.evaluation.grid_folder import Cell, Column, curves, gallery, paired_tests, samples
from sightline.statistics.pairs import PairedTest

CELLS = (Cell("net", "LOTS/zero", "insertion"), Cell("net/2", "", "accuracy"))


def test_samples_written_are_read(tmp_path):
    index, label = np.array([2, 5, 9]), np.array([0, 1, 1])
    columns = {
        cell: Column(index, ["a,b.jpg", "c.jpg", "d.jpg"], label, label[::-1].copy(), np.array([0.5, np.nan, shift]))
        for cell, shift in zip(CELLS, (0.25, 2))
    }
    (tmp_path / samples.FILE).write_bytes(samples.samples_parquet(columns.items()))
    read = samples.read_samples(tmp_path / samples.FILE)
    assert read.keys() == columns.keys()
    for cell, column in columns.items():
        assert read[cell].path == column.path
        for key in ("index", "label", "predicted", "value"):
            np.testing.assert_array_equal(getattr(read[cell], key), getattr(column, key))
        assert read[cell].mean == np.nanmean(column.value)
        assert (read[cell].at(5), read[cell].at(3)) == (1, None)


def test_paired_tests_written_are_read(tmp_path):
    first, second = Cell("net", "A", "insertion"), Cell("net", "B", "insertion")
    tests = {(first, second): PairedTest(0.5, 0.25, 0.75, 0.01, 12, 0.03)}
    (tmp_path / paired_tests.FILE).write_bytes(paired_tests.paired_tests_csv(tests.items()))
    assert paired_tests.read_paired_tests(tmp_path / paired_tests.FILE) == tests


def test_curves_written_are_read(tmp_path):
    points = [(CELLS[0], 0.0, 0.125), (CELLS[0], 1.0, 0.75), (CELLS[1], 0.5, 0.5)]
    (tmp_path / curves.FILE).write_bytes(curves.curves_csv(points))
    read = curves.read_curves(tmp_path / curves.FILE)
    assert {cell: curve.tolist() for cell, curve in read.items()} == {
        CELLS[0]: [[0, 1], [0.125, 0.75]],
        CELLS[1]: [[0.5], [0.5]],
    }


def test_gallery_written_is_read(tmp_path):
    images = {
        "index": torch.tensor([3, 8]),
        "images": torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8),
        "masks": torch.tensor([0, 1], dtype=torch.uint8)[:, None, None].expand(2, 4, 5).contiguous(),
    }
    maps = {cell[:2]: torch.randint(256, (2, 4, 5), dtype=torch.uint8) for cell in CELLS}
    (tmp_path / gallery.FILE).write_bytes(gallery.gallery_safetensors(images, maps))
    read = gallery.read_gallery(tmp_path / gallery.FILE, CELLS)
    assert list(read) == ["net", "net/2"]
    assert read["net"].maps["LOTS/zero"].equal(maps["net", "LOTS/zero"])
    assert read["net"].images.equal(images["images"])
    assert read["net"].has_mask.tolist() == [False, True]
