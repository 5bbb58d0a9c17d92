"""samples.csv: what is known of each image of a split, one row per image."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sightline._core.csv_files import csv_text, floats, integers
from sightline._core.reading import reading
from sightline.statistics.bootstrap import Array

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """What is known of each image of a split, in the order of the split.

    Attributes:
        index: (n,) Position in the dataset, ascending.
        path: (n,) Where the image came from.
        label: (n,) Class index.
        predicted: (n,) Class index.
        probability: (n,) Probability of the predicted class.
        group: (n,) Group index; None if the split has no groups.
        values: "<metric>@<explainer>" -> (n,), NaN where it is not defined for an image (no mask).
    """

    index: Integers
    path: list[str]
    label: Integers
    predicted: Integers
    probability: Array
    group: Integers | None
    values: dict[str, Array]

    @property
    def correct(self) -> Array:
        """(n,) 1 where the prediction is the label, else 0."""
        return (self.predicted == self.label).astype(float)

    def row(self, index: int) -> int:
        """Return the row of the image with that index."""
        return int(np.searchsorted(self.index, index))


def samples_csv(samples: Mapping[str, Tensor], paths: Sequence[str] | None) -> str:
    """Return the columns of `Evaluation.samples` as CSV; a value that is not defined is an empty cell.

    Args:
        samples: Column -> (n,).
        paths: (n,) Where each image came from.
    """
    columns: dict[str, list[Any]] = {name: column.tolist() for name, column in samples.items()}
    empty = [""] * len(columns["index"])
    first = {
        "index": columns.pop("index"),
        "path": list(paths) if paths is not None else empty,
        **{name: columns.pop(name) for name in ("label", "predicted", "probability", "correct")},
        "group": columns.pop("group", empty),
    }
    rows = ([_cell(value) for value in row] for row in zip(*first.values(), *columns.values()))
    return csv_text([*first, *columns], rows)


def read_samples(path: Path) -> Samples:
    """Read samples.csv, in the order of the images' indices."""
    with reading(path, "evaluate the run again"):
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
        index = integers(columns["index"])
        order = np.argsort(index)
        groups = columns.get("group", [])
        return Samples(
            index=index[order],
            path=[columns["path"][i] for i in order],
            label=integers(columns["label"])[order],
            predicted=integers(columns["predicted"])[order],
            probability=floats(columns["probability"])[order],
            group=integers(groups)[order] if groups and all(groups) else None,
            values={name: floats(column)[order] for name, column in columns.items() if "@" in name},
        )


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.7g}"
