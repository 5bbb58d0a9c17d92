"""What a table of evaluations holds: cells, values, and the same values image by image."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sightline.evaluation.split_folder.samples import Integers
from sightline.statistics.bootstrap import Array


class Cell(NamedTuple):
    """What a value belongs to. The explainer is "" if a metric judges no map."""

    model: str
    explainer: str
    metric: str

    def __str__(self) -> str:
        return " of ".join(filter(None, (self.metric, self.explainer, self.model)))


@dataclass(frozen=True)
class Value:
    """A value over images with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Column:
    """A value image by image, in increasing order of the images.

    Attributes:
        index: (n,) Position in the dataset.
        path: (n,) Where the image came from.
        label: (n,) Class index.
        predicted: (n,) Class index.
        value: (n,) NaN where it is not defined.
    """

    index: Integers
    path: list[str]
    label: Integers
    predicted: Integers
    value: Array

    @property
    def mean(self) -> float:
        """Mean over the images that have a value; NaN without any."""
        known = self.value[~np.isnan(self.value)]
        return float(known.mean()) if len(known) else np.nan

    def at(self, index: int) -> int | None:
        """Return the row of the image with that index, or None if it has no row."""
        found = np.flatnonzero(self.index == index)
        return int(found[0]) if len(found) else None
