"""The sections of a leaderboard: one model's explainers, and the models side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.evaluation.grid_folder import Evaluations
from sightline.evaluation.ranking import Ranking, RankingTable, ranking_tables
from sightline.reporting.formatting import title
from sightline.reporting.leaderboard.curves import Panel, curve_panels, line_styles
from sightline.reporting.leaderboard.findings import list_findings
from sightline.reporting.leaderboard.gallery import Gallery, make_gallery
from sightline.reporting.leaderboard.words import rank_words
from sightline.statistics.ranks import ImageRanks


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
