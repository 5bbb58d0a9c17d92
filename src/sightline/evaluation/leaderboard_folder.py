"""Evaluations of models x explainers x metrics, read as they lie on disk, and put together where there are several."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sightline._core.optional import requires_extra
from sightline.errors import SightlineError
from sightline.evaluation.run_folder import Array, Integers
from sightline.evaluation.statistics import holm, paired

with requires_extra("report", "a table of evaluations"):
    import pyarrow as pa
    import pyarrow.parquet as pq

MADE_BY = "`sightline evaluate PLAN.yaml` and `sightline reproduce` make such folders"
DIRECTIONS = {"true": True, "false": False}


class Cell(NamedTuple):
    """What a value belongs to; no explainer ("") where a metric judges no map."""

    model: str
    explainer: str
    metric: str


@dataclass(frozen=True)
class Value:
    """A value over images, with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Column:
    """A value image by image, in increasing order of the images.

    Attributes:
        index: (n,) place in the data set.
        path: (n,) where the image came from.
        label: (n,) class index.
        predicted: (n,) class index.
        value: (n,) NaN where it is not defined.
    """

    index: Integers
    path: list[str]
    label: Integers
    predicted: Integers
    value: Array

    def at(self, index: int) -> int | None:
        """Where the image of that index stands; None if it is not here."""
        found = np.flatnonzero(self.index == index)
        return int(found[0]) if len(found) else None


@dataclass(frozen=True)
class PairedTest:
    """A paired difference, first less second, over the images that both have.

    Attributes:
        difference: its mean.
        p: of the paired test.
        p_holm: the same after Holm's correction among the pairs of one model and metric.
        n: number of images.
    """

    difference: float
    p: float
    p_holm: float
    n: int


@dataclass(frozen=True)
class SavedImages:
    """Images that were kept with their maps.

    Attributes:
        index: (G,) places in the data set.
        images: (G, 3, H, W) uint8.
        masks: (G, H, W) uint8, 1 on the object and 255 where nobody knows; None without masks.
        maps: explainer -> (G, H, W) uint8.
    """

    index: list[int]
    images: Tensor
    masks: Tensor | None
    maps: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluations:
    """Everything that the folders say.

    Attributes:
        title: of the first folder's study.
        notes: of all studies, and what there is to know of how the folders fit together.
        folders: where it was read.
        higher_is_better: metric -> its direction, in the order of the tables.
        values: the tables.
        columns: the same image by image, where that is known.
        tests: metric -> pair of (model, explainer) -> the paired difference.
        curves: (2, points): shares of the pixels, and the mean value at each.
        saved: model -> its kept images.
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
        """In the order of the tables."""
        return list(dict.fromkeys(cell.model for cell in self.values))


def read_evaluations(folders: Sequence[str | Path]) -> Evaluations:
    """Read folders of evaluations and put them together.

    A cell that several folders hold is taken from the first of them. Pairs of explainers that no folder has tested,
    since each has one of the two, are tested here.

    Raises:
        SightlineError: no folder; a file is missing or damaged; there is no value at all; the folders differ in a
            metric's direction, or hold one model on different data.
    """
    if not folders:
        raise SightlineError("folders is empty; give the folder of an evaluation")
    read = [_read_folder(Path(folder)) for folder in folders]
    merged = read[0]
    for other in read[1:]:
        merged = _merge(merged, other)
    if not any(np.isfinite(value.value) for value in merged.values.values()):
        named = ", ".join(map(str, merged.folders))
        raise SightlineError(f"{named}: no value in table.csv; either nothing is done yet, or nothing is defined")
    return merged


def _read_folder(folder: Path) -> Evaluations:
    if not (folder / "table.csv").is_file():
        raise SightlineError(f"{folder} is not the folder of an evaluation: it holds no table.csv ({MADE_BY})")
    study = _study(folder / "study.yaml")
    values, higher_is_better = _table(folder / "table.csv")
    return Evaluations(
        title=str(study.get("title") or folder.resolve().name),
        notes=[str(note) for note in study.get("notes") or []],
        folders=[folder],
        higher_is_better=higher_is_better,
        values=values,
        columns={cell: column for cell, column in _samples(folder / "samples.parquet").items() if cell in values},
        tests=_tests(folder / "tests.csv"),
        curves=_curves(folder / "curves.csv"),
        saved=_saved_images(folder / "gallery.safetensors", values),
    )


def _study(path: Path) -> dict[str, Any]:
    try:
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(study, dict):
        raise SightlineError(f"{path} holds {type(study).__name__}; expected a mapping")
    return study


def _table(path: Path) -> tuple[dict[Cell, Value], dict[str, bool]]:
    values: dict[Cell, Value] = {}
    directions: dict[str, bool] = {}
    columns = ("model", "explainer", "metric", "value", "low", "high", "n", "higher_is_better")
    for line, row in _rows(path, columns):
        cell = Cell(row["model"], row["explainer"], row["metric"])
        if cell in values:
            raise SightlineError(f"{path}, line {line}: a second value of {_spoken(cell)}")
        higher = DIRECTIONS.get(row["higher_is_better"].lower())
        if higher is None:
            raise SightlineError(f"{path}, line {line}: higher_is_better is {row['higher_is_better']!r}; True or False")
        if directions.setdefault(cell.metric, higher) != higher:
            raise SightlineError(f"{path}, line {line}: {cell.metric} changes its direction")
        value, low, high, n = (_number(row[key], path, line, key) for key in ("value", "low", "high", "n"))
        values[cell] = Value(value, low, high, int(np.nan_to_num(n)))
    return values, directions


def _tests(path: Path) -> dict[tuple[Cell, Cell], PairedTest]:
    keys = ("difference", "p", "p_holm", "n")
    tests = {}
    for line, row in _rows(path, ("metric", "model", "explainer", "against_model", "against_explainer", *keys)):
        first = Cell(row["model"], row["explainer"], row["metric"])
        second = Cell(row["against_model"], row["against_explainer"], row["metric"])
        difference, p, p_holm, n = (_number(row[key], path, line, key) for key in keys)
        tests[first, second] = PairedTest(difference, p, p_holm, int(np.nan_to_num(n)))
    return tests


def _curves(path: Path) -> dict[Cell, Array]:
    points: dict[Cell, list[tuple[float, float]]] = {}
    for line, row in _rows(path, ("model", "explainer", "metric", "share", "value")):
        at, value = (_number(row[key], path, line, key) for key in ("share", "value"))
        points.setdefault(Cell(row["model"], row["explainer"], row["metric"]), []).append((at, value))
    return {cell: np.array(some).T for cell, some in points.items()}


def _samples(path: Path) -> dict[Cell, Column]:
    names, numbers = ("model", "explainer", "metric"), ("index", "label", "predicted", "value")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    _require(path, table.column_names, (*names, "path", *numbers))
    if not len(table):
        return {}
    texts = {name: table[name].cast(pa.string()).combine_chunks().dictionary_encode() for name in names}
    codes = np.stack([texts[name].indices.to_numpy() for name in names])
    index, label, predicted, value = (table[key].to_numpy() for key in numbers)
    paths = table["path"].cast(pa.string()).to_numpy()
    order = np.lexsort((index, *codes))
    starts = np.flatnonzero(np.any(np.diff(codes[:, order], axis=1) != 0, axis=0)) + 1
    columns = {}
    for rows in np.split(order, starts):
        cell = Cell(*(texts[name].dictionary[int(code)].as_py() for name, code in zip(names, codes[:, rows[0]])))
        columns[cell] = Column(
            index[rows], paths[rows].tolist(), label[rows], predicted[rows], value[rows].astype(np.float64)
        )
    return columns


def _saved_images(path: Path, cells: dict[Cell, Value]) -> dict[str, SavedImages]:
    if not path.is_file():
        return {}
    try:
        tensors = load_file(path)
        index, images = tensors["index"].tolist(), tensors["images"]
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    except KeyError as error:
        raise SightlineError(f"{path} holds no {error}") from None
    maps: dict[str, dict[str, Tensor]] = {}
    for model, explainer in dict.fromkeys((cell.model, cell.explainer) for cell in cells):
        if (key := f"maps/{model}/{explainer}") in tensors:
            maps.setdefault(model, {})[explainer] = tensors[key]
    for name, tensor in tensors.items():
        if len(tensor) != len(index):
            raise SightlineError(f"{path}: {name} holds {len(tensor)} images; index has {len(index)}")
    return {model: SavedImages(index, images, tensors.get("masks"), some) for model, some in maps.items()}


def _merge(first: Evaluations, second: Evaluations) -> Evaluations:
    """Both together; of what both hold, the first."""
    for metric in first.higher_is_better.keys() & second.higher_is_better.keys():
        if first.higher_is_better[metric] != second.higher_is_better[metric]:
            raise SightlineError(f"{first.folders[0]} and {second.folders[0]} differ in the direction of {metric}")
    both = [cell for cell in second.values if cell in first.values and cell.explainer]
    notes = [*first.notes, *(note for note in second.notes if note not in first.notes)]
    if both:
        names = ", ".join(dict.fromkeys(f"{cell.explainer} on {cell.model}" for cell in both))
        notes.append(f"Taken from the first of the folders that hold it: {names}.")
    shared = [model for model in first.models if model in second.models]
    notes += [note for model in shared if (note := _disagreement(model, first, second))]
    merged = Evaluations(
        title=first.title,
        notes=notes,
        folders=[*first.folders, *second.folders],
        higher_is_better={**second.higher_is_better, **first.higher_is_better},
        values={**first.values, **{c: f for c, f in second.values.items() if c not in first.values}},
        columns={**second.columns, **first.columns},
        tests={**second.tests, **first.tests},
        curves={**second.curves, **first.curves},
        saved={**second.saved, **first.saved},
    )
    for model in shared:
        _test_all_pairs(model, merged)
        one, other = first.saved.get(model), second.saved.get(model)
        if one and other and one.index == other.index and one.images.shape == other.images.shape:
            merged.saved[model] = SavedImages(one.index, one.images, one.masks, {**other.maps, **one.maps})
    return merged


def _disagreement(model: str, first: Evaluations, second: Evaluations) -> str | None:
    """A caution where two folders do not show the same network under one label.

    Raises:
        SightlineError: an image is not the same in both.
    """
    (paths, predicted), (other_paths, other_predicted) = (_images(model, each) for each in (first, second))
    both = sorted(paths.keys() & other_paths.keys())
    for index in both:
        if paths[index] != other_paths[index]:
            raise SightlineError(
                f"{first.folders[0]} and {second.folders[0]} hold {model} on different data: image {index} is "
                f"{paths[index]} in one and {other_paths[index]} in the other"
            )
    changed = sum(predicted[index] != other_predicted[index] for index in both)
    if not changed:
        return None
    return f"The folders disagree on what {model} predicts for {changed} of {len(both)} images: is it the same network?"


def _images(model: str, evaluations: Evaluations) -> tuple[dict[int, str], dict[int, int]]:
    """Index -> path and index -> predicted class of every image that a model has seen."""
    paths: dict[int, str] = {}
    predicted: dict[int, int] = {}
    for cell, column in evaluations.columns.items():
        if cell.model == model:
            paths |= dict(zip(column.index.tolist(), column.path))
            predicted |= dict(zip(column.index.tolist(), column.predicted.tolist()))
    return paths, predicted


def _test_all_pairs(model: str, evaluations: Evaluations) -> None:
    """Test the pairs of a model's explainers that lie in different folders, and correct all pairs together anew."""
    for metric in evaluations.higher_is_better:
        cells = [
            cell
            for cell, value in evaluations.values.items()
            if (cell.model, cell.metric) == (model, metric)
            and cell.explainer
            and cell in evaluations.columns
            and np.isclose(_mean(evaluations.columns[cell]), value.value, rtol=1e-4, atol=1e-5)
        ]  # a value that is no mean over images has no paired test
        tested: dict[tuple[Cell, Cell], PairedTest] = {}
        for one, other in combinations(cells, 2):
            pair = (other, one) if (other, one) in evaluations.tests else (one, other)
            if (
                test := evaluations.tests.get(pair) or _paired_test(*(evaluations.columns[cell] for cell in pair))
            ) is not None:
                tested[pair] = test
        for (pair, test), p_holm in zip(tested.items(), holm([test.p for test in tested.values()])):
            evaluations.tests[pair] = PairedTest(test.difference, test.p, p_holm, test.n)


def _mean(column: Column) -> float:
    known = column.value[~np.isnan(column.value)]
    return float(known.mean()) if len(known) else np.nan


def _paired_test(first: Column, second: Column) -> PairedTest | None:
    """The paired test over the images that both have; None with fewer than two."""
    both, one, other = np.intersect1d(first.index, second.index, return_indices=True)
    test = paired(first.value[one], second.value[other]) if len(both) else None
    return None if test is None else PairedTest(test.difference, test.p, test.p, test.n)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV file with their numbers; empty for a file that has no header yet."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if not text.strip():
        return []
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    _require(path, reader.fieldnames or [], columns)
    return [(reader.line_num, row) for row in reader]


def _require(path: Path, have: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in have]:
        raise SightlineError(f"{path} has no column {', '.join(missing)}; it has {', '.join(have)} ({MADE_BY})")


def _number(text: str, path: Path, line: int, column: str) -> float:
    try:
        return float(text) if text else np.nan
    except ValueError:
        raise SightlineError(f"{path}, line {line}: {column} is {text!r}; expected a number") from None


def _spoken(cell: Cell) -> str:
    return " of ".join(filter(None, (cell.metric, cell.explainer, cell.model)))


def _unreadable(path: Path, error: Exception) -> SightlineError:
    reason = f"{path.name} is missing" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
    return SightlineError(f"the evaluation {path.parent} cannot be read: {reason}")
