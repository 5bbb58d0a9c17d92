"""The sections of a leaderboard: one model's explainers, and the models side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.evaluation.disagreement import Disagreement, DisputedImage, ScoredMap, find_disagreement
from sightline.evaluation.grid_folder import Evaluations
from sightline.evaluation.ranking import Ranking, RankingTable, ranking_tables
from sightline.evaluation.result import SavedImages
from sightline.reporting.formatting import title
from sightline.reporting.leaderboard.curves import Panel, curve_panels, line_styles
from sightline.reporting.leaderboard.findings import list_findings
from sightline.reporting.leaderboard.words import rank_words
from sightline.reporting.overlay import overlay_uri
from sightline.reporting.thumbnails import data_uri, enlarge, outline
from sightline.statistics.ranks import ImageRanks


@dataclass(frozen=True)
class Tile:
    """A map drawn over its image, as a data URI."""

    scored_map: ScoredMap
    picture: str
    chosen: bool


@dataclass(frozen=True)
class GalleryItem:
    """An image with all its maps.

    Attributes:
        disputed: The chosen image.
        picture: The image as a data URI, the object outlined where there is a mask.
        tiles: The maps that were ranked, the best score first, then those of the chance rows.
    """

    disputed: DisputedImage
    picture: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Gallery:
    """The images of one model.

    Attributes:
        found: What was chosen, and by which measures.
        plausible_but_unfaithful: Maps that look better than they score, the largest gap first.
        faithful_but_implausible: Maps that score better than they look, the largest gap first.
    """

    found: Disagreement
    plausible_but_unfaithful: list[GalleryItem]
    faithful_but_implausible: list[GalleryItem]


@dataclass(frozen=True)
class Section:
    """The section about one model's explainers, or about the models."""

    table: RankingTable
    findings: list[str]
    by_image: dict[str, ImageRanks]
    panels: list[Panel]
    gallery: Gallery | None

    @property
    def unequal(self) -> bool:
        """Whether the values rest on different numbers of images."""
        rows = (*self.table.rows, *self.table.chance)
        return len({n for row in rows for n in self.table.images(row)}) > 1

    @property
    def rankings(self) -> list[Ranking]:
        """The competitors' and, after them, those of the chance rows."""
        return [*self.table.rankings, *map(self.table.ranking, self.table.chance)]


def make_sections(evaluations: Evaluations) -> list[Section]:
    """One a model."""
    styles = line_styles(evaluations)
    found = []
    for table in ranking_tables(evaluations):
        ranked = {title(metric): table.image_ranks(metric) for metric in table.metrics}
        ranked["All metrics"] = table.image_ranks_over_metrics()
        by_image = {name: ranks for name, ranks in ranked.items() if ranks is not None}
        found.append(
            Section(
                table=table,
                findings=list_findings(table, by_image.get("All metrics")),
                by_image=by_image,
                panels=curve_panels(table, evaluations, styles),
                gallery=make_gallery(table, evaluations.saved.get(table.name)),
            )
        )
    return found


def overview(sections: Sequence[Section]) -> list[tuple[str, list[str]]]:
    """Row -> its mean rank on every model, best mean of these first; empty for one model."""
    if len(sections) < 2:
        return []
    means = {section.table.name: {s.row: s for s in section.table.rankings} for section in sections}
    rows = dict.fromkeys(row for section in sections for row in section.table.rows)

    def mean(row: str) -> tuple[int, float]:
        known = [some[row].mean for some in means.values() if row in some and np.isfinite(some[row].mean)]
        return -len(known), float(np.mean(known)) if known else np.inf

    return [
        (row, [rank_words(some[row]) if row in some else "–" for some in means.values()])
        for row in sorted(rows, key=mean)
    ]


def make_gallery(table: RankingTable, saved: SavedImages | None) -> Gallery | None:
    """Draw the images that `find_disagreement` chooses; None if it chooses from nothing."""
    found = find_disagreement(table, saved)
    if found is None or saved is None:
        return None
    plausible, faithful = (
        [_draw_item(image, saved) for image in images]
        for images in (found.plausible_but_unfaithful, found.faithful_but_implausible)
    )
    return Gallery(found, plausible, faithful)


def _draw_item(found: DisputedImage, saved: SavedImages) -> GalleryItem:
    image = enlarge(saved.images[found.place].float() / 255)
    border = None if saved.masks is None else outline(saved.masks[found.place] == 1)

    def draw(one: ScoredMap) -> Tile:
        return Tile(one, overlay_uri(image, saved.maps[one.row][found.place], border), one is found.chosen)

    return GalleryItem(found, data_uri(image, border), [draw(one) for one in (*found.ranked, *found.chance)])
