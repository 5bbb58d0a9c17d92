"""Images on which metrics and eyes disagree: a map that looks good and scores badly, or the reverse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sightline.evaluation.kept_images import energy_on_object
from sightline.evaluation.ranking import RankingTable
from sightline.evaluation.result import SavedImages

SCORES = ("insertion", "deletion", "lerf", "morf", "lerf_minus_morf")  # what the model says about a map
COMPLEXITY, ENERGY, COHERENCY = "complexity", "energy_in_mask", "coherency"  # what an eye sees of it
HIGHER = {COMPLEXITY: False, ENERGY: True, COHERENCY: True}
COUNT = 3  # images per direction


@dataclass(frozen=True)
class ScoredMap:
    """One map on one image.

    Attributes:
        row: whose map.
        values: metric -> value, looks and scores.
        ranks: metric -> rank from 1 among the maps of this image; empty for a chance row, which has no rank.
        looks: mean rank by looks.
        score: mean rank by scores.
    """

    row: str
    values: dict[str, float]
    ranks: dict[str, float]
    looks: float
    score: float


@dataclass(frozen=True)
class DisputedImage:
    """An image with a map whose ranks by looks and by scores are far apart.

    Attributes:
        place: Its place among the kept images.
        path: Where it came from.
        correct: Whether the model is right about it.
        chosen: The map for which it was chosen.
        ranked: The maps that were ranked, the best score first.
        chance: The maps of the chance rows.
    """

    place: int
    path: str
    correct: bool
    chosen: ScoredMap
    ranked: list[ScoredMap]
    chance: list[ScoredMap]


@dataclass(frozen=True)
class Disagreement:
    """The images of one model on which looks and scores are furthest apart.

    Attributes:
        looks: Measures of how a map looks.
        scores: Metrics that ask the model.
        pool: Number of images that these were chosen from.
        plausible_but_unfaithful: Images with a map that looks better than it scores, the largest gap first.
        faithful_but_implausible: Images with a map that scores better than it looks, the largest gap first.
    """

    looks: list[str]
    scores: list[str]
    pool: int
    plausible_but_unfaithful: list[DisputedImage]
    faithful_but_implausible: list[DisputedImage]


def find_disagreement(table: RankingTable, saved: SavedImages | None) -> Disagreement | None:
    """Choose the images with the largest gaps between the ranks of a map by looks and by scores.

    How a map looks is measured on the map that is shown: its complexity, and its energy on the object if there is a mask,
    and its coherency if the evaluation has it. An image appears once.

    Returns:
        None without kept images, without a metric that scores maps by the model, or with fewer than two explainers.
    """
    scores = [metric for metric in SCORES if metric in table.metrics]
    if saved is None or not scores:
        return None
    looks = [COMPLEXITY]
    looks += [ENERGY] if saved.masks is not None and bool((saved.masks == 1).any()) else []
    looks += [COHERENCY] if COHERENCY in table.metrics else []
    ranked = [list(_rank_maps(table, saved, place, looks, scores)) for place in range(len(saved.index))]
    if not any(ranked):
        return None
    plausible, faithful = (
        [_describe(table, saved, place, one, ranked[place], [*looks, *scores]) for place, one in chosen.items()]
        for chosen in _choose(ranked)
    )
    return Disagreement(looks, scores, len(saved.index), plausible, faithful)


def _choose(ranked: Sequence[Sequence[ScoredMap]]) -> Iterator[dict[int, ScoredMap]]:
    """Yield place of an image -> map: first the maps that look better than they score, then the reverse."""
    gaps = [  # relative to the number of ranks, so images compare
        ((one.score - one.looks) / (len(some) - 1), place, one) for place, some in enumerate(ranked) for one in some
    ]
    taken: set[int] = set()
    for sign in (1, -1):
        chosen: dict[int, ScoredMap] = {}
        for gap, place, one in sorted(gaps, key=lambda each: -sign * each[0]):
            if sign * gap > 0 and place not in taken and len(chosen) < COUNT:
                chosen[place] = one
                taken.add(place)
        yield chosen


def _describe(
    table: RankingTable,
    saved: SavedImages,
    place: int,
    chosen: ScoredMap,
    ranked: Sequence[ScoredMap],
    metrics: Sequence[str],
) -> DisputedImage:
    column = table.columns[chosen.row, metrics[-1]]
    at = column.at(int(saved.index[place]))
    assert at is not None
    return DisputedImage(
        place=place,
        path=column.path[at],
        correct=bool(column.label[at] == column.predicted[at]),
        chosen=chosen,
        ranked=sorted(ranked, key=lambda one: one.score),
        chance=[
            ScoredMap(row, _values(table, saved, place, row, metrics), {}, np.nan, np.nan)
            for row in table.chance
            if row in saved.maps
        ],
    )


def _rank_maps(
    table: RankingTable, saved: SavedImages, place: int, looks: Sequence[str], scores: Sequence[str]
) -> Iterator[ScoredMap]:
    """Yield the competitors' maps of one image that have every value, with their ranks; nothing for fewer than two."""
    values = {row: _values(table, saved, place, row, [*looks, *scores]) for row in table.rows if row in saved.maps}
    full = {row: some for row, some in values.items() if np.isfinite(list(some.values())).all()}
    if len(full) < 2:
        return
    higher = table.higher_is_better | HIGHER
    ranks = {
        metric: stats.rankdata([some[metric] * (-1 if higher[metric] else 1) for some in full.values()])
        for metric in (*looks, *scores)
    }
    for at, (row, some) in enumerate(full.items()):
        own = {metric: float(rank[at]) for metric, rank in ranks.items()}
        by_looks, by_score = (float(np.mean([own[metric] for metric in kind])) for kind in (looks, scores))
        yield ScoredMap(row, some, own, by_looks, by_score)


def _values(table: RankingTable, saved: SavedImages, place: int, row: str, metrics: Sequence[str]) -> dict[str, float]:
    """NaN where there is no value."""
    found = {}
    for metric in metrics:
        if metric == COMPLEXITY:
            found[metric] = float(saved.maps[row][place].float().mean() / 255)
        elif metric == ENERGY:
            assert saved.masks is not None
            found[metric] = energy_on_object(saved.maps[row][place], saved.masks[place])
        else:
            column = table.columns.get((row, metric))
            at = None if column is None else column.at(int(saved.index[place]))
            found[metric] = np.nan if column is None or at is None else float(column.value[at])
    return found
