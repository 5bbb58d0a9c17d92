"""One model in several folders: whether the images are the same, and tests of its explainers across folders."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from sightline.errors import SightlineError
from sightline.evaluation.grid_folder.cells import Cell, Column
from sightline.statistics.pairs import Paired, PairedTest, adjust_tests, paired

Columns = Mapping[Cell, Column]


def check_same_images(model: str, where: str, first: Columns, second: Columns) -> str | None:
    """Return a caution if two folders do not show the same network under one label.

    Raises:
        SightlineError: An image is not the same in both.
    """
    (paths, predicted), (other_paths, other_predicted) = (_images(model, columns) for columns in (first, second))
    both = sorted(paths.keys() & other_paths.keys())
    for index in both:
        if paths[index] != other_paths[index]:
            raise SightlineError(
                f"{where} hold {model} on different data: image {index} is {paths[index]} in one and {other_paths[index]} "
                "in the other; name folders that were made with the same data"
            )
    changed = sum(predicted[index] != other_predicted[index] for index in both)
    if not changed:
        return None
    return f"The folders disagree on what {model} predicts for {changed} of {len(both)} images: is it the same network?"


def compare_all_pairs(
    means: Mapping[Cell, float], columns: Columns, known: Mapping[tuple[Cell, Cell], PairedTest]
) -> dict[tuple[Cell, Cell], PairedTest]:
    """Test the pairs of explainers that are in different folders, and correct all pairs together again.

    Args:
        means: The cells of one model and metric with their values. A value that is not a mean over images has no paired test.
        columns: The values image by image.
        known: The tests that the folders hold.
    """
    cells = [
        cell
        for cell, value in means.items()
        if cell in columns and np.isclose(columns[cell].mean, value, rtol=1e-4, atol=1e-5)
    ]
    tests: dict[tuple[Cell, Cell], Paired] = {}
    for one, other in combinations(cells, 2):
        pair = (other, one) if (other, one) in known else (one, other)
        if (test := known.get(pair) or _paired(columns[pair[0]], columns[pair[1]])) is not None:
            tests[pair] = test
    return adjust_tests(tests)


def _images(model: str, columns: Columns) -> tuple[dict[int, str], dict[int, int]]:
    """Index -> path and index -> predicted class of every image that a model has seen."""
    paths: dict[int, str] = {}
    predicted: dict[int, int] = {}
    for cell, column in columns.items():
        if cell.model == model:
            paths |= dict(zip(column.index.tolist(), column.path))
            predicted |= dict(zip(column.index.tolist(), column.predicted.tolist()))
    return paths, predicted


def _paired(first: Column, second: Column) -> Paired | None:
    """Return the paired difference over the images that both have; None with fewer than two."""
    both, one, other = np.intersect1d(first.index, second.index, return_indices=True)
    return paired(first.value[one], second.value[other]) if len(both) else None
