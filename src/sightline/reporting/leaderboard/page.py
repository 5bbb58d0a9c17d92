"""The leaderboard as a page and as Markdown."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sightline.evaluation.grid_folder import Evaluations, Value, read_evaluations
from sightline.evaluation.ranking import (
    CellMark,
    Ranking,
    RankingTable,
    is_chance,
    model_ranking_table,
    ranking_tables,
)
from sightline.evaluation.statistics import LEVEL, ImageRanks
from sightline.reporting.formatting import number, title
from sightline.reporting.leaderboard.gallery import Disagreement, disagreement
from sightline.reporting.markdown import markdown
from sightline.reporting.page import render_page, write_page

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6f4e9c", "#7a5c3d")  # after Okabe and Ito
GREY = "#8a8a85"
CHANCE = {"level": "≈ chance", "below": "below chance"}
KEY = (
    "Arrows say which way is better. Bold is best, underlined second best; † cannot be told from the best (paired test at "
    "5 % after Holm’s correction). Random maps are the chance rows: they take no place, and a cell that is not "
    "shown to be better says so."
)
UNEQUAL = (
    "Rows differ in the number of images. Places and ranks compare two rows on the images that both have, so that "
    "one can be ahead of another whose value looks better."
)


@dataclass(frozen=True)
class Panel:
    """One drawing of mean curves, as a data URI.

    Attributes:
        title: what is drawn.
        picture: the drawing.
        summary: the same in words.
    """

    title: str
    picture: str
    summary: str


@dataclass(frozen=True)
class Section:
    """Everything that is said of one model's explainers, or of the models."""

    table: RankingTable
    findings: list[str]
    by_image: dict[str, ImageRanks]
    panels: list[Panel]
    gallery: Disagreement | None

    @property
    def unequal(self) -> bool:
        """Whether the values rest on different numbers of images."""
        rows = (*self.table.rows, *self.table.chance)
        return len({n for row in rows for n in self.table.images(row)}) > 1

    @property
    def rankings(self) -> list[Ranking]:
        """The competitors' and, after them, those of the chance rows."""
        return [*self.table.rankings, *map(self.table.ranking, self.table.chance)]


def write_leaderboard(folders: Sequence[str | Path], output: str | Path | None = None) -> tuple[Path, Path]:
    """Write who is best in what as a page, and as Markdown.

    Args:
        folders: of evaluations of models x explainers x metrics.
        output: the folder to write into; None = the first of the folders.

    Returns:
        The paths of leaderboard.html and leaderboard.md.

    Raises:
        SightlineError: a folder is not that of an evaluation, or they do not fit together (see `read_evaluations`), or a
            file cannot be written.
    """
    evaluations = read_evaluations(folders)
    sections = make_sections(evaluations)
    place = Path(folders[0] if output is None else output)
    return (
        write_page(render(evaluations, sections), place / "leaderboard.html"),
        write_page(render_markdown(evaluations, sections), place / "leaderboard.md"),
    )


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
                findings=_findings(table, by_image.get("All metrics")),
                by_image=by_image,
                panels=_panels(table, evaluations, styles),
                gallery=disagreement(table, evaluations.saved.get(table.name)),
            )
        )
    return found


def render(evaluations: Evaluations, sections: Sequence[Section]) -> str:
    """The page as a string."""
    return render_page(
        "leaderboard.html.j2",
        evaluations=evaluations,
        sections=sections,
        models=model_ranking_table(evaluations),
        overview=overview(sections),
        styles=line_styles(evaluations),
        key=KEY,
        unequal=UNEQUAL,
        no_mark=CellMark(0, False, None),
        chance_words=CHANCE,
        span=span,
        about=about,
        rank_words=rank_words,
        p_value=p_value,
    )


def render_markdown(evaluations: Evaluations, sections: Sequence[Section]) -> str:
    """The tables as Markdown."""
    parts = [f"# {evaluations.title}"]
    if evaluations.notes:
        parts.append("\n".join(f"- {note}" for note in evaluations.notes))
    parts.append(f"Value (95 % interval over images). {KEY}")
    if (models := model_ranking_table(evaluations)) is not None:
        parts += ["## The models", _value_table("Model", models)]
    if rows := overview(sections):
        header = ["Mean rank", *(_plain(section.table.name) for section in sections)]
        parts += ["## Mean rank on every model", markdown(header, [[_plain(row), *cells] for row, cells in rows])]
    for section in sections:
        parts += [f"## {section.table.name}", _value_table("Explainer", section.table)]
        parts += [UNEQUAL] if section.unequal else []
        parts += ["\n".join(f"- {finding}" for finding in section.findings), "### Ranks", _rank_table(section)]
        parts += ["### Ranks image by image", _image_rank_table(section)] if section.by_image else []
    return "\n\n".join(parts) + "\n"


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


def rank_words(ranking: Ranking) -> str:
    """A mean rank; in brackets where a metric is missing from it."""
    if np.isnan(ranking.mean):
        return "–"
    return f"{ranking.mean:.2f}" if ranking.complete else f"({ranking.mean:.2f})"


def span(value: Value, metric: str) -> str:
    """The interval of a value."""
    if np.isnan(value.low):
        return "no interval"
    return f"{number(value.low, metric)} to {number(value.high, metric)}"


def about(value: Value, metric: str, mark: CellMark) -> str:
    """What a cell says of itself when asked."""
    parts = [f"95 % interval {span(value, metric)}", f"n = {value.n}"]
    parts += ["cannot be told from the best"] if mark.level else []
    parts += {None: [], "level": ["not shown to be better than chance"], "below": ["worse than chance"]}[mark.chance]
    return "; ".join(parts)


def p_value(p: float) -> str:
    """A p-value with the digits that mean something."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def line_styles(evaluations: Evaluations) -> dict[str, tuple[str, str]]:
    """Explainer -> colour and kind of line, the same in every panel."""
    explainers = dict.fromkeys(cell.explainer for cell in evaluations.curves)
    competing = [name for name in explainers if not is_chance(name)]
    styles = {
        name: (COLORS[i % len(COLORS)], ("solid", "dotted", "dashdot")[i // len(COLORS) % 3])
        for i, name in enumerate(competing)
    }
    return styles | {name: (GREY, "dashed") for name in explainers if is_chance(name)}


def _findings(table: RankingTable, overall: ImageRanks | None) -> list[str]:
    best = table.rankings[0] if table.rankings else None
    found = []
    if best is not None and best.complete and len(table.rows) > 1:
        first = [s.row for s in table.rankings if s.complete and s.mean == best.mean]
        verb = "has" if len(first) == 1 else "share"
        metrics = f"the {len(table.metrics)} metrics" if len(table.metrics) > 1 else "the one metric"
        found.append(
            f"{_listed(first)} {verb} the best mean rank over {metrics}: {best.mean:.2f} of {len(table.rows)}."
        )
        if len(table.metrics) > 1:
            found.append(_front_finding(table))
    if overall is not None:
        differ = "differ" if overall.p < LEVEL else "cannot be told apart"
        found.append(
            f"Image by image, over all metrics, the explainers {differ} (Friedman’s test, n = {overall.n}, "
            f"p {_equals(overall.p)})."
        )
    found.append(_chance_finding(table))
    gaps = [
        f"{row} ({', '.join(title(m) for m in table.metrics if table.value(row, m) is None)})"
        for row in (*table.rows, *table.chance)
        if not table.ranking(row).complete
    ]
    if gaps:
        found.append(
            f"No value and hence no rank: {'; '.join(gaps)}. Mean ranks over the metrics that are left are in brackets, "
            "and listed last: they do not compare with the others."
        )
    return found


def _front_finding(table: RankingTable) -> str:
    """The Pareto front in words."""
    beaten = [s.row for s in table.rankings if s.complete and s.row not in table.unbeaten]
    if not beaten:
        return "No explainer is equalled or beaten by another in all metrics at once."
    verb = "is" if len(beaten) == 1 else "are"
    return (
        f"{_listed(beaten)} {verb} equalled or beaten in all metrics at once by another; {_listed(table.unbeaten)} not."
    )


def _chance_finding(table: RankingTable) -> str:
    if not table.chance:
        return "No random maps were evaluated: what is no better than chance is not known."
    cells = [
        (row, metric)
        for row in table.rows
        for metric in table.metrics
        if table.value(row, metric) and any(table.value(other, metric) for other in table.chance)
    ]
    if not cells:
        return f"Nothing to set against chance ({_listed(table.chance)}) yet."
    level = [(row, metric) for row, metric in cells if table.mark(row, metric).chance is not None]
    if not level:
        return f"Every explainer is better than chance ({_listed(table.chance)}) in every metric."
    which = "; ".join(
        f"{title(metric)} ({', '.join(row for row, m in level if m == metric)})"
        for metric in table.metrics
        if any(m == metric for _, m in level)
    )
    return f"{len(level)} of {len(cells)} values are not shown to be better than chance ({_listed(table.chance)}): {which}."


def _panels(table: RankingTable, evaluations: Evaluations, styles: dict[str, tuple[str, str]]) -> list[Panel]:
    """A panel a metric that has curves, the chance rows at the back."""
    panels = []
    for metric in table.metrics:
        found = {
            c.explainer: curve for c, curve in evaluations.curves.items() if (c.model, c.metric) == (table.name, metric)
        }
        curves = {row: found[row] for row in (*table.chance, *table.rows) if row in found}
        if curves:
            ends = ", ".join(f"{row} {np.trapezoid(y, x):.3f}" for row, (x, y) in curves.items())
            panels.append(Panel(title(metric), _drawing(curves, styles), f"Area under each curve: {ends}"))
    return panels


def _drawing(curves: dict[str, np.ndarray], styles: dict[str, tuple[str, str]]) -> str:
    """Curves as an SVG drawing in a data URI; equal curves give equal bytes."""
    drawing = Figure(figsize=(3.6, 2.5), layout="constrained", facecolor="white")
    axes = drawing.subplots()
    for row, (share, value) in curves.items():
        color, style = styles[row]
        axes.plot(100 * share, value, color=color, linestyle=style, linewidth=1.4, label=row)
    axes.set_xlabel("% of the pixels changed", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e4e2da", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sightline", "font.family": "sans-serif"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _value_table(corner: str, table: RankingTable) -> str:
    competing = [ranking.row for ranking in table.rankings]
    lines = []
    for row in (*competing, *table.chance):
        cells = [_value_cell(table, row, metric) for metric in table.metrics]
        name = f"*{_plain(row)}* (chance)" if row in table.chance else _plain(row)
        lines.append([name, *cells, " to ".join(map(str, _ends(table.images(row))))])
    return markdown([corner, *_headings(table), "n"], lines)


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
            f"*{_plain(ranking.row)}* (chance)" if ranking.row in table.chance else _plain(ranking.row),
            rank_words(ranking),
            *(f"{ranking.ranks[m]:g}" if m in ranking.ranks else "–" for m in table.metrics),
        ]
        for ranking in section.rankings
    ]
    return markdown(["Explainer", "Mean rank", *map(title, table.metrics)], lines)


def _image_rank_table(section: Section) -> str:
    rows = [ranking.row for ranking in section.table.rankings]
    ranked = list(section.by_image.values())
    lines = [[_plain(row), *(f"{r.mean[row]:.2f}" if row in r.mean else "–" for r in ranked)] for row in rows]
    lines += [
        ["Friedman’s p", *(p_value(ranks.p) for ranks in ranked)],
        ["critical difference", *(f"{ranks.critical:.2f}" for ranks in ranked)],
        ["n", *(str(ranks.n) for ranks in ranked)],
    ]
    return markdown(["Mean rank over images", *section.by_image], lines)


def _headings(table: RankingTable) -> list[str]:
    return [f"{title(metric)} {'↑' if higher else '↓'}" for metric, higher in table.higher_is_better.items()]


def _ends(numbers: Sequence[int]) -> list[int]:
    """The least and the greatest, once where they are one."""
    return sorted({min(numbers), max(numbers)}) if numbers else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def _plain(text: str) -> str:
    """A label as a cell of a Markdown table."""
    return text.replace("|", "\\|")
