"""Who is ahead in what: ranks, ties and chance among the explainers of a model, or among models."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import stats

from sightline.evaluation.grid_folder import Cell, Column, Evaluations, Value
from sightline.statistics.bootstrap import Array
from sightline.statistics.pairs import LEVEL, PairedTest
from sightline.statistics.ranks import ImageRanks, friedman

SHOWN = 0.0005  # half of the last digit that a table shows; smaller differences are ties


@dataclass(frozen=True)
class RowComparison:
    """How far one row is ahead of another.

    Attributes:
        by: positive where it is better, regardless of the metric's direction; 0 for what a table would not show.
        significant: whether it is more than chance: the paired test at 5 % after Holm's correction; where there is none,
            whether the 95 % intervals are apart.
        n: images that both have; None where there is no paired test.
    """

    by: float
    significant: bool
    n: int | None


@dataclass(frozen=True)
class CellMark:
    """What a table says about a cell in addition to its value.

    Attributes:
        place: 1 for the best, 2 for the second best, else 0. Ties share a place.
        level: not the best, but not to be distinguished from it.
        chance: `level` where it cannot be distinguished from a chance row, `below` where it is worse; None
            where it is better, or there is no chance row.
    """

    place: int
    level: bool
    chance: Literal["level", "below"] | None


@dataclass(frozen=True)
class Ranking:
    """A row's ranks.

    Attributes:
        row: whose.
        ranks: metric -> rank from 1, ties sharing the mean; metrics without a value are left out.
        mean: over these; NaN without any.
        complete: whether there is one for every metric.
    """

    row: str
    ranks: dict[str, float]
    mean: float
    complete: bool


@dataclass(frozen=True)
class RankingTable:
    """Rows of a table that the same metrics judge.

    Attributes:
        name: of the model; "" where models compete.
        rows: who competes, in the order of the evaluation.
        chance: rows that know nothing, and compete with nobody.
        higher_is_better: metric -> its direction.
        values: (row, metric) -> value.
        columns: the same image by image.
        tests: (metric, row, other row) -> the paired difference, in one of the two orders.
    """

    name: str
    rows: list[str]
    chance: list[str]
    higher_is_better: dict[str, bool]
    values: dict[tuple[str, str], Value]
    columns: dict[tuple[str, str], Column]
    tests: dict[tuple[str, str, str], PairedTest]

    @property
    def metrics(self) -> list[str]:
        """In the order of the evaluation."""
        return list(self.higher_is_better)

    def value(self, row: str, metric: str) -> Value | None:
        """Return a value; None if there is none."""
        value = self.values.get((row, metric))
        return value if value is not None and np.isfinite(value.value) else None

    def images(self, row: str) -> list[int]:
        """Return the numbers of images behind the row's values, ascending; one number if all metrics saw the same images."""
        found = (self.value(row, metric) for metric in self.metrics)
        return sorted({value.n for value in found if value is not None})

    def compare_rows(self, metric: str, row: str, other: str) -> RowComparison:
        """How far a row is ahead of another; both have a value.

        The difference is taken over the images that both have wherever a paired test says it, so a row that saw
        fewer images is not compared with other ones.
        """
        sign = 1 if self.higher_is_better[metric] else -1
        for first, second, turn in ((row, other, 1), (other, row, -1)):
            if (test := self.tests.get((metric, first, second))) is not None:
                return RowComparison(_visible(sign * turn * test.difference), test.p_holm < LEVEL, test.n)
        one, two = self.values[row, metric], self.values[other, metric]
        apart = one.low > two.high or two.low > one.high
        return RowComparison(_visible(sign * (one.value - two.value)), apart, None)

    def rank(self, metric: str, row: str) -> float | None:
        """1, half a place more for each tie, and one more for each competitor that is ahead; None without a value.

        A chance row gets the rank that it would have if it took part.
        """
        if self.value(row, metric) is None:
            return None
        comparisons = [self.compare_rows(metric, other, row).by for other in self._judged(metric) if other != row]
        return 1 + sum(1.0 if by > 0 else 0.5 if by == 0 else 0.0 for by in comparisons)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """Of the competitors, the best mean rank first, those with gaps after those without."""
        found = [self.ranking(row) for row in self.rows]
        return sorted(found, key=lambda s: (not s.complete, np.isnan(s.mean), s.mean))

    def ranking(self, row: str) -> Ranking:
        """Return the ranks of one row."""
        given = {metric: self.rank(metric, row) for metric in self.metrics}
        ranks = {metric: rank for metric, rank in given.items() if rank is not None}
        mean = float(np.mean(list(ranks.values()))) if ranks else np.nan
        return Ranking(row, ranks, mean, len(ranks) == len(self.metrics))

    def mark(self, row: str, metric: str) -> CellMark:
        """Return the mark of a cell that has a value."""
        if row in self.chance:
            return CellMark(0, False, None)
        places = self._places(metric)
        place = places.get(row, 0)
        best = [other for other, at in places.items() if at == 1]
        level = place != 1 and any(not self.compare_rows(metric, row, other).significant for other in best)
        return CellMark(place, level, self._against_chance(row, metric))

    @cached_property
    def unbeaten(self) -> list[str]:
        """Rows that no other row equals or beats in every metric and beats in one; only rows without gaps count."""
        full = [ranking.row for ranking in self.rankings if ranking.complete]

        def beats(row: str, other: str) -> bool:
            comparisons = [self.compare_rows(metric, row, other).by for metric in self.metrics]
            return min(comparisons) >= 0 and max(comparisons) > 0

        return [row for row in full if not any(beats(other, row) for other in full if other != row)]

    def image_ranks(self, metric: str) -> ImageRanks | None:
        """Ranks image by image under one metric; None for fewer than three rows or two images."""
        rows = [row for row in self._judged(metric) if (row, metric) in self.columns]
        return friedman(rows, self._shared(rows, [metric])[:, 0]) if rows else None

    def image_ranks_over_metrics(self) -> ImageRanks | None:
        """Return the ranks of each image averaged over all metrics, and ranked again."""
        rows = [row for row in self.rows if all((row, metric) in self.columns for metric in self.metrics)]
        if not rows or len(self.metrics) < 2:
            return None
        values = self._shared(rows, self.metrics)
        return friedman(rows, -stats.rankdata(-values, axis=2).mean(axis=1))

    def _judged(self, metric: str) -> list[str]:
        """Competitors that have a value."""
        return [row for row in self.rows if self.value(row, metric) is not None]

    def _places(self, metric: str) -> dict[str, int]:
        """1 for the best rows and 2 for the second best ones; nobody where a row is alone."""
        ranks = {row: self.rank(metric, row) for row in self._judged(metric)}
        order = sorted({rank for rank in ranks.values() if rank is not None})[:2]
        return {row: 1 + order.index(rank) for row, rank in ranks.items() if rank in order} if len(ranks) > 1 else {}

    def _against_chance(self, row: str, metric: str) -> Literal["level", "below"] | None:
        comparisons = [
            self.compare_rows(metric, row, other) for other in self.chance if self.value(other, metric) is not None
        ]
        if any(comparison.significant and comparison.by < 0 for comparison in comparisons):
            return "below"
        return (
            "level" if any(not (comparison.significant and comparison.by > 0) for comparison in comparisons) else None
        )

    def _shared(self, rows: Sequence[str], metrics: Sequence[str]) -> Array:
        """Values (images, metrics, rows) where higher is better, of the images that have them all."""
        columns = [[self.columns[row, metric] for row in rows] for metric in metrics]
        known = [set(c.index[~np.isnan(c.value)].tolist()) for some in columns for c in some]
        images = sorted(set.intersection(*known)) if known else []
        signs = [1 if self.higher_is_better[metric] else -1 for metric in metrics]
        values = [[s * c.value[np.searchsorted(c.index, images)] for c in some] for s, some in zip(signs, columns)]
        return np.array(values, float).reshape(len(metrics), len(rows), len(images)).transpose(2, 0, 1)


def ranking_tables(evaluations: Evaluations) -> list[RankingTable]:
    """Return the explainers of each model, in the order of the evaluation; models without maps are left out."""
    found = []
    for model in evaluations.models:
        cells = [cell for cell in evaluations.values if cell.model == model and cell.explainer]
        if cells:
            found.append(_ranking_table(model, cells, {cell: cell.explainer for cell in cells}, evaluations))
    return found


def model_ranking_table(evaluations: Evaluations) -> RankingTable | None:
    """Return the ranking of the models by the metrics that need no map; None without such metrics."""
    cells = [cell for cell in evaluations.values if not cell.explainer]
    return _ranking_table("", cells, {cell: cell.model for cell in cells}, evaluations) if cells else None


def is_chance(explainer: str) -> bool:
    """Whether maps of that label know nothing of the model: `randomcam` in any spelling, or a plain Gaussian."""
    plain = re.sub(r"[^a-z0-9]", "", explainer.lower())
    return "randomcam" in plain or plain == "gaussian"


def _ranking_table(name: str, cells: Iterable[Cell], rows: dict[Cell, str], evaluations: Evaluations) -> RankingTable:
    cells = list(cells)
    labels = list(dict.fromkeys(rows[cell] for cell in cells))
    present = {cell.metric for cell in cells}
    return RankingTable(
        name=name,
        rows=[label for label in labels if not (name and is_chance(label))],
        chance=[label for label in labels if name and is_chance(label)],
        higher_is_better={m: higher for m, higher in evaluations.higher_is_better.items() if m in present},
        values={(rows[cell], cell.metric): evaluations.values[cell] for cell in cells},
        columns={(rows[c], c.metric): evaluations.columns[c] for c in cells if c in evaluations.columns},
        tests={
            (a.metric, rows[a], rows[b]): test for (a, b), test in evaluations.tests.items() if a in rows and b in rows
        },
    )


def _visible(difference: float) -> float:
    return 0.0 if abs(difference) < SHOWN else difference
