"""Images on which metrics and eyes disagree: a map that looks good and scores badly, or the reverse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor
from torch.nn.functional import interpolate

from sightline.evaluation.ranking import RankingTable
from sightline.evaluation.result import SavedImages
from sightline.reporting.overlay import blend
from sightline.reporting.thumbnails import data_uri, enlarge, outline

SCORES = ("insertion", "deletion", "lerf", "morf", "lerf_minus_morf")  # what the model says of a map
COMPLEXITY, ENERGY, COHERENCY = "complexity", "energy_in_mask", "coherency"  # what an eye sees of it
HIGHER = {COMPLEXITY: False, ENERGY: True, COHERENCY: True}
COUNT = 3  # images a direction


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
class Tile:
    """A map as it is shown: over its image, as a data URI."""

    scored_map: ScoredMap
    picture: str
    chosen: bool


@dataclass(frozen=True)
class GalleryItem:
    """An image with all its maps.

    Attributes:
        path: where it came from.
        correct: whether the model is right about it.
        picture: the image as a data URI, the object outlined where there is a mask.
        chosen: the map for which it is shown.
        count: how many maps were ranked.
        tiles: those that were ranked, the best score first, then the chance rows.
    """

    path: str
    correct: bool
    picture: str
    chosen: ScoredMap
    count: int
    tiles: list[Tile]


@dataclass(frozen=True)
class Disagreement:
    """The images of one model.

    Attributes:
        looks: measures of how a map looks.
        scores: metrics that ask the model.
        pool: number of images that these were chosen from.
        plausible_but_unfaithful: maps that look better than they score, the largest gap first.
        faithful_but_implausible: maps that score better than they look, the largest gap first.
    """

    looks: list[str]
    scores: list[str]
    pool: int
    plausible_but_unfaithful: list[GalleryItem]
    faithful_but_implausible: list[GalleryItem]


def disagreement(table: RankingTable, saved: SavedImages | None) -> Disagreement | None:
    """Choose the images with the largest gaps between the ranks of a map by looks and by scores.

    How a map looks is measured on the map as it is shown: its complexity, and its energy on the object where there is a
    mask; and its coherency where the evaluation has it. An image appears once.

    Returns:
        None without kept images, without a metric that scores maps by the model, or with fewer than two explainers.
    """
    scores = [metric for metric in SCORES if metric in table.metrics]
    if saved is None or not scores:
        return None
    looks = [COMPLEXITY]
    looks += [ENERGY] if saved.masks is not None and bool((saved.masks == 1).any()) else []
    looks += [COHERENCY] if COHERENCY in table.metrics else []
    judged = [list(_judge(table, saved, place, looks, scores)) for place in range(len(saved.index))]
    if not any(judged):
        return None
    gaps = [
        ((one.score - one.looks) / (len(some) - 1), place, one)  # of the ranks there are, so that images compare
        for place, some in enumerate(judged)
        for one in some
    ]
    chosen: list[tuple[bool, int, ScoredMap]] = []
    for plausible, order in ((True, sorted(gaps, key=lambda gap: -gap[0])), (False, sorted(gaps, key=lambda g: g[0]))):
        for gap, place, one in order:
            taken = {at for _, at, _ in chosen}
            full = sum(direction == plausible for direction, *_ in chosen) == COUNT
            if (gap > 0) == plausible and gap and place not in taken and not full:
                chosen.append((plausible, place, one))
    items = {
        direction: [
            _draw_item(table, saved, place, one, judged[place], [*looks, *scores])
            for which, place, one in chosen
            if which == direction
        ]
        for direction in (True, False)
    }
    return Disagreement(looks, scores, len(saved.index), items[True], items[False])


def _judge(
    table: RankingTable, saved: SavedImages, place: int, looks: Sequence[str], scores: Sequence[str]
) -> Iterator[ScoredMap]:
    """The competitors' maps of one image that have every value, with their ranks; nothing for fewer than two."""
    values = {row: _values(table, saved, place, row, [*looks, *scores]) for row in table.rows if row in saved.maps}
    full = {row: some for row, some in values.items() if np.isfinite(list(some.values())).all()}
    if len(full) < 2:
        return
    ranks = {
        metric: stats.rankdata([some[metric] * (-1 if _higher(table, metric) else 1) for some in full.values()])
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
        if metric in (COMPLEXITY, ENERGY):
            found[metric] = _plausibility(saved.maps[row][place], None if metric == COMPLEXITY else _mask(saved, place))
        else:
            column = table.columns.get((row, metric))
            at = None if column is None else column.at(int(saved.index[place]))
            found[metric] = np.nan if column is None or at is None else float(column.value[at])
    return found


def _plausibility(saliency: Tensor, mask: Tensor | None) -> float:
    """Complexity of a uint8 map (H, W): its mean; with a mask its energy on the object, NaN where there is none."""
    if mask is None:
        return float(saliency.float().mean() / 255)
    heat = interpolate(saliency[None, None].float(), size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    known = heat[mask != 255].sum()
    return float(heat[mask == 1].sum() / known) if known > 0 and bool((mask == 1).any()) else np.nan


def _mask(saved: SavedImages, place: int) -> Tensor:
    assert saved.masks is not None
    return saved.masks[place]


def _higher(table: RankingTable, metric: str) -> bool:
    return HIGHER[metric] if metric in HIGHER else table.higher_is_better[metric]


def _draw_item(
    table: RankingTable,
    saved: SavedImages,
    place: int,
    chosen: ScoredMap,
    judged: Sequence[ScoredMap],
    metrics: Sequence[str],
) -> GalleryItem:
    column = table.columns[chosen.row, metrics[-1]]
    at = int(np.flatnonzero(column.index == int(saved.index[place]))[0])
    image = enlarge(saved.images[place].float() / 255)
    border = None if saved.masks is None else outline(saved.masks[place] == 1)
    chance = [
        ScoredMap(row, _values(table, saved, place, row, metrics), {}, np.nan, np.nan)
        for row in table.chance
        if row in saved.maps
    ]

    def draw(one: ScoredMap) -> Tile:
        saliency = saved.maps[one.row][place][None, None].float() / 255
        heat = interpolate(saliency, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return Tile(one, data_uri(blend(image[None], heat[0])[0], border), one is chosen)

    return GalleryItem(
        path=column.path[at],
        correct=bool(column.label[at] == column.predicted[at]),
        picture=data_uri(image, border),
        chosen=chosen,
        count=len(judged),
        tiles=[draw(one) for one in (*sorted(judged, key=lambda one: one.score), *chance)],
    )
