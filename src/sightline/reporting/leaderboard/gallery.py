"""Images on which metrics and eyes disagree: a map that looks good and scores badly, or the reverse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor
from torch.nn.functional import interpolate

from sightline.evaluation.leaderboard_folder import Shown
from sightline.evaluation.ranking import Contest
from sightline.reporting.overlay import blend
from sightline.reporting.pictures import enlarge, outline, picture

SCORES = ("insertion", "deletion", "lerf", "morf", "lerf_minus_morf")  # what the model says of a map
COMPLEXITY, ENERGY, COHERENCY = "complexity", "energy_in_mask", "coherency"  # what an eye sees of it
HIGHER = {COMPLEXITY: False, ENERGY: True, COHERENCY: True}
COUNT = 3  # images a direction


@dataclass(frozen=True)
class Judged:
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

    judged: Judged
    picture: str
    chosen: bool


@dataclass(frozen=True)
class Exhibit:
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
    chosen: Judged
    count: int
    tiles: list[Tile]


@dataclass(frozen=True)
class Disagreement:
    """The images of one model.

    Attributes:
        looks: measures of how a map looks.
        scores: metrics that ask the model.
        pool: number of images that these were chosen from.
        flattered: maps that look better than they score, the largest gap first.
        slighted: maps that score better than they look, the largest gap first.
    """

    looks: list[str]
    scores: list[str]
    pool: int
    flattered: list[Exhibit]
    slighted: list[Exhibit]


def disagreement(contest: Contest, shown: Shown | None) -> Disagreement | None:
    """Choose the images with the largest gaps between the ranks of a map by looks and by scores.

    How a map looks is measured on the map as it is shown: its complexity, and its energy on the object where there is a
    mask; and its coherency where the evaluation has it. An image appears once.

    Returns:
        None without kept images, without a metric that scores maps by the model, or with fewer than two explainers.
    """
    scores = [metric for metric in SCORES if metric in contest.metrics]
    if shown is None or not scores:
        return None
    looks = [COMPLEXITY]
    looks += [ENERGY] if shown.masks is not None and bool((shown.masks == 1).any()) else []
    looks += [COHERENCY] if COHERENCY in contest.metrics else []
    judged = [list(_judge(contest, shown, place, looks, scores)) for place in range(len(shown.index))]
    if not any(judged):
        return None
    gaps = [
        ((one.score - one.looks) / (len(some) - 1), place, one)  # of the ranks there are, so that images compare
        for place, some in enumerate(judged)
        for one in some
    ]
    chosen: list[tuple[bool, int, Judged]] = []
    for flattered, order in ((True, sorted(gaps, key=lambda gap: -gap[0])), (False, sorted(gaps, key=lambda g: g[0]))):
        for gap, place, one in order:
            taken = {at for _, at, _ in chosen}
            full = sum(direction == flattered for direction, *_ in chosen) == COUNT
            if (gap > 0) == flattered and gap and place not in taken and not full:
                chosen.append((flattered, place, one))
    exhibits = {
        direction: [
            _exhibit(contest, shown, place, one, judged[place], [*looks, *scores])
            for which, place, one in chosen
            if which == direction
        ]
        for direction in (True, False)
    }
    return Disagreement(looks, scores, len(shown.index), exhibits[True], exhibits[False])


def _judge(contest: Contest, shown: Shown, place: int, looks: Sequence[str], scores: Sequence[str]) -> Iterator[Judged]:
    """The competitors' maps of one image that have every value, with their ranks; nothing for fewer than two."""
    values = {row: _values(contest, shown, place, row, [*looks, *scores]) for row in contest.rows if row in shown.maps}
    full = {row: some for row, some in values.items() if np.isfinite(list(some.values())).all()}
    if len(full) < 2:
        return
    ranks = {
        metric: stats.rankdata([some[metric] * (-1 if _higher(contest, metric) else 1) for some in full.values()])
        for metric in (*looks, *scores)
    }
    for at, (row, some) in enumerate(full.items()):
        own = {metric: float(rank[at]) for metric, rank in ranks.items()}
        by_looks, by_score = (float(np.mean([own[metric] for metric in kind])) for kind in (looks, scores))
        yield Judged(row, some, own, by_looks, by_score)


def _values(contest: Contest, shown: Shown, place: int, row: str, metrics: Sequence[str]) -> dict[str, float]:
    """NaN where there is no value."""
    found = {}
    for metric in metrics:
        if metric in (COMPLEXITY, ENERGY):
            found[metric] = _look(shown.maps[row][place], None if metric == COMPLEXITY else _mask(shown, place))
        else:
            column = contest.columns.get((row, metric))
            at = None if column is None else column.at(shown.index[place])
            found[metric] = np.nan if column is None or at is None else float(column.value[at])
    return found


def _look(saliency: Tensor, mask: Tensor | None) -> float:
    """Complexity of a uint8 map (H, W): its mean; with a mask its energy on the object, NaN where there is none."""
    if mask is None:
        return float(saliency.float().mean() / 255)
    heat = interpolate(saliency[None, None].float(), size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    known = heat[mask != 255].sum()
    return float(heat[mask == 1].sum() / known) if known > 0 and bool((mask == 1).any()) else np.nan


def _mask(shown: Shown, place: int) -> Tensor:
    assert shown.masks is not None
    return shown.masks[place]


def _higher(contest: Contest, metric: str) -> bool:
    return HIGHER[metric] if metric in HIGHER else contest.higher_is_better[metric]


def _exhibit(
    contest: Contest, shown: Shown, place: int, chosen: Judged, judged: Sequence[Judged], metrics: Sequence[str]
) -> Exhibit:
    column = contest.columns[chosen.row, metrics[-1]]
    at = int(np.flatnonzero(column.index == shown.index[place])[0])
    image = enlarge(shown.images[place].float() / 255)
    border = None if shown.masks is None else outline(shown.masks[place] == 1)
    chance = [
        Judged(row, _values(contest, shown, place, row, metrics), {}, np.nan, np.nan)
        for row in contest.chance
        if row in shown.maps
    ]

    def draw(one: Judged) -> Tile:
        saliency = shown.maps[one.row][place][None, None].float() / 255
        heat = interpolate(saliency, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return Tile(one, picture(blend(image[None], heat[0])[0], border), one is chosen)

    return Exhibit(
        path=column.path[at],
        correct=bool(column.label[at] == column.predicted[at]),
        picture=picture(image, border),
        chosen=chosen,
        count=len(judged),
        tiles=[draw(one) for one in (*sorted(judged, key=lambda one: one.score), *chance)],
    )
