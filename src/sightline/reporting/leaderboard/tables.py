"""The leaderboard as Markdown tables."""

from collections.abc import Sequence

from sightline.evaluation.grid_folder import Evaluations
from sightline.evaluation.ranking import RankingTable, model_ranking_table
from sightline.reporting.formatting import number, title
from sightline.reporting.leaderboard.sections import Section, overview
from sightline.reporting.leaderboard.words import CHANCE, KEY, UNEQUAL, p_value, page_title, rank_words, span
from sightline.reporting.markdown import markdown


def render_markdown(evaluations: Evaluations, sections: Sequence[Section]) -> str:
    """Render the tables as Markdown."""
    parts = [f"# {page_title(evaluations)}"]
    if evaluations.notes:
        parts.append("\n".join(f"- {note}" for note in evaluations.notes))
    parts.append(f"Value (95% interval over images). {KEY}")
    if (models := model_ranking_table(evaluations)) is not None:
        parts += ["## Models", _value_table("Model", models)]
    if rows := overview(sections):
        header = ["Mean rank", *(section.table.name for section in sections)]
        parts += ["## Mean rank on every model", markdown(header, [[row, *cells] for row, cells in rows])]
    for section in sections:
        parts += [f"## {section.table.name}", _value_table("Explainer", section.table)]
        parts += [UNEQUAL] if section.unequal else []
        parts += ["\n".join(f"- {finding}" for finding in section.findings), "### Ranks", _rank_table(section)]
        parts += ["### Ranks per image", _image_rank_table(section)] if section.by_image else []
    return "\n\n".join(parts) + "\n"


def _value_table(corner: str, table: RankingTable) -> str:
    competing = [ranking.row for ranking in table.rankings]
    lines = []
    for row in (*competing, *table.chance):
        cells = [_value_cell(table, row, metric) for metric in table.metrics]
        name = f"*{row}* (chance)" if row in table.chance else row
        lines.append([name, *cells, " to ".join(map(str, _ends(table.images(row))))])
    headings = [f"{title(metric)} {'↑' if higher else '↓'}" for metric, higher in table.higher_is_better.items()]
    return markdown([corner, *headings, "n"], lines)


def _value_cell(table: RankingTable, row: str, metric: str) -> str:
    value = table.value(row, metric)
    if value is None:
        return "–"
    mark = table.mark(row, metric)
    text = number(value.value, metric)
    text = {0: text, 1: f"**{text}**", 2: f"<ins>{text}</ins>"}[mark.place] + ("†" if mark.level else "")
    return f"{text} ({span(value, metric)})" + (f", {CHANCE[mark.chance]}" if mark.chance else "")


def _rank_table(section: Section) -> str:
    table = section.table
    lines = [
        [
            f"*{ranking.row}* (chance)" if ranking.row in table.chance else ranking.row,
            rank_words(ranking),
            *(f"{ranking.ranks[m]:g}" if m in ranking.ranks else "–" for m in table.metrics),
        ]
        for ranking in section.rankings
    ]
    return markdown(["Explainer", "Mean rank", *map(title, table.metrics)], lines)


def _image_rank_table(section: Section) -> str:
    rows = [ranking.row for ranking in section.table.rankings]
    ranked = list(section.by_image.values())
    lines = [[row, *(f"{r.mean[row]:.2f}" if row in r.mean else "–" for r in ranked)] for row in rows]
    lines += [
        ["Friedman’s p", *(p_value(ranks.p) for ranks in ranked)],
        ["critical difference", *(f"{ranks.critical:.2f}" for ranks in ranked)],
        ["n", *(str(ranks.n) for ranks in ranked)],
    ]
    return markdown(["Mean rank over images", *section.by_image], lines)


def _ends(numbers: Sequence[int]) -> list[int]:
    """Return the smallest and the largest value, once if they are equal."""
    return sorted({min(numbers), max(numbers)}) if numbers else []
