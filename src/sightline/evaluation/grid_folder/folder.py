"""Folders of evaluations of models x explainers x metrics, read and put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from sightline._core.strict import read_mapping
from sightline.errors import SightlineError
from sightline.evaluation.grid_folder import curves, gallery, paired_tests, samples, values
from sightline.evaluation.grid_folder.cells import Cell, Column, Value
from sightline.evaluation.grid_folder.rows import MADE_BY
from sightline.evaluation.result import SavedImages
from sightline.statistics.bootstrap import Array
from sightline.statistics.pairs import Paired, PairedTest, adjust_tests, paired

Columns = Mapping[Cell, Column]


@dataclass(frozen=True)
class Evaluations:
    """Everything in the folders.

    Attributes:
        title: Title of the first folder's study; empty if it has none but the name of the folder or file.
        notes: Notes of all studies, and on how the folders fit together.
        folders: Where it was read.
        higher_is_better: Metric -> its direction, in the order of the tables.
        values: The tables.
        columns: The same values image by image, where they are known.
        tests: Pair of cells of one metric -> the paired difference.
        curves: (2, points): shares of the pixels, and the mean value at each.
        saved: Model -> its kept images.
    """

    title: str
    notes: list[str]
    folders: list[Path]
    higher_is_better: dict[str, bool]
    values: dict[Cell, Value]
    columns: dict[Cell, Column]
    tests: dict[tuple[Cell, Cell], PairedTest]
    curves: dict[Cell, Array]
    saved: dict[str, SavedImages]

    @property
    def models(self) -> list[str]:
        """The models in the order of the tables."""
        return list(dict.fromkeys(cell.model for cell in self.values))


def read_evaluations(folders: Sequence[str | Path]) -> Evaluations:
    """Read folders of evaluations and put them together.

    A cell that several folders hold is taken from the first of them. Pairs of explainers that are in different folders are
    tested here.

    Raises:
        SightlineError: No folder was given; a file is missing or damaged; there is no value at all; the folders differ in a
            metric's direction, or hold one model on different data.
    """
    if not folders:
        raise SightlineError("folders is empty; give the folder of an evaluation")
    merged, *others = [_read_folder(Path(folder)) for folder in folders]
    for other in others:
        merged = _merge(merged, other)
    if not any(np.isfinite(value.value) for value in merged.values.values()):
        named = ", ".join(map(str, merged.folders))
        raise SightlineError(
            f"{named}: {values.FILE} has no values yet. No part is finished, or no metric is defined for these maps; run the "
            "command that writes the folder to its end"
        )
    return merged


def _read_folder(folder: Path) -> Evaluations:
    if not (folder / values.FILE).is_file():
        raise SightlineError(f"{folder} is not the folder of an evaluation: it holds no {values.FILE} ({MADE_BY})")
    study = read_mapping(folder / "study.yaml")
    cells, higher_is_better = values.read_values(folder / values.FILE)
    columns = samples.read_samples(folder / samples.FILE)
    return Evaluations(
        title=_find_title(study),
        notes=[str(note) for note in study.get("notes") or []],
        folders=[folder],
        higher_is_better=higher_is_better,
        values=cells,
        columns={cell: column for cell, column in columns.items() if cell in cells},
        tests=paired_tests.read_paired_tests(folder / paired_tests.FILE),
        curves=curves.read_curves(folder / curves.FILE),
        saved=gallery.read_gallery(folder / gallery.FILE, cells),
    )


def _find_title(study: Mapping[str, Any]) -> str:
    """Return the title of a study; empty if it is missing, or only the name that the study got from its file or folder."""
    title = study.get("title") or ""
    return "" if title == study.get("item") else str(title)


def _merge(first: Evaluations, second: Evaluations) -> Evaluations:
    """Put both together; what both hold is taken from the first."""
    for metric in first.higher_is_better.keys() & second.higher_is_better.keys():
        if first.higher_is_better[metric] != second.higher_is_better[metric]:
            raise SightlineError(
                f"{first.folders[0]} and {second.folders[0]} differ in the direction of {metric}; make one page for each folder"
            )
    shared = [model for model in first.models if model in second.models]
    merged = Evaluations(
        title=first.title,
        notes=_merge_notes(first, second, shared),
        folders=[*first.folders, *second.folders],
        higher_is_better={**second.higher_is_better, **first.higher_is_better},
        values={**first.values, **{c: v for c, v in second.values.items() if c not in first.values}},
        columns={**second.columns, **first.columns},
        tests={**second.tests, **first.tests},
        curves={**second.curves, **first.curves},
        saved={**second.saved, **first.saved},
    )
    for model in shared:
        for metric in merged.higher_is_better:
            cells = [c for c in merged.values if (c.model, c.metric) == (model, metric) and c.explainer]
            means = {cell: merged.values[cell].value for cell in cells}
            merged.tests.update(compare_all_pairs(means, merged.columns, merged.tests))
        one, other = first.saved.get(model), second.saved.get(model)
        if one and other and one.index.equal(other.index) and one.images.shape == other.images.shape:
            merged.saved[model] = SavedImages(
                one.index, one.images, one.masks, one.has_mask, {**other.maps, **one.maps}
            )
    return merged


def _merge_notes(first: Evaluations, second: Evaluations, shared: Sequence[str]) -> list[str]:
    """Merge the notes of both, with a note on cells that both hold and on models that differ."""
    notes = [*first.notes, *(note for note in second.notes if note not in first.notes)]
    both = [cell for cell in second.values if cell in first.values and cell.explainer]
    if both:
        names = ", ".join(dict.fromkeys(f"{cell.explainer} on {cell.model}" for cell in both))
        notes.append(f"Several folders contain these results, and the first of them is used: {names}.")
    where = f"{first.folders[0]} and {second.folders[0]}"
    checked = [check_same_images(model, where, first.columns, second.columns) for model in shared]
    return [*notes, *(note for note in checked if note)]


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
