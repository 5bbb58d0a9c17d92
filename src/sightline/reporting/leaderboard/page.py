"""The leaderboard as a page and as Markdown."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Drawing

from sightline.evaluation.leaderboard_folder import Evaluations, Figure, read_evaluations
from sightline.evaluation.ranking import (
    Contest,
    ImageRanks,
    Mark,
    Standing,
    contests,
    is_chance,
    models_contest,
)
from sightline.reporting.leaderboard.gallery import Disagreement, disagreement
from sightline.reporting.markdown import markdown
from sightline.reporting.page import render_page, write_page
from sightline.reporting.wording import number, title

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
    "one can be ahead of another whose figure looks better."
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
class Board:
    """Everything that is said of one model's explainers, or of the models."""

    contest: Contest
    findings: list[str]
    by_image: dict[str, ImageRanks]
    panels: list[Panel]
    gallery: Disagreement | None

    @property
    def unequal(self) -> bool:
        """Whether the values rest on different numbers of images."""
        rows = (*self.contest.rows, *self.contest.chance)
        return len({n for row in rows for n in self.contest.images(row)}) > 1

    @property
    def standings(self) -> list[Standing]:
        """The competitors' and, after them, those of the chance rows."""
        return [*self.contest.standings, *map(self.contest.standing, self.contest.chance)]


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
    boards = make_boards(evaluations)
    place = Path(folders[0] if output is None else output)
    return (
        write_page(render(evaluations, boards), place / "leaderboard.html"),
        write_page(render_markdown(evaluations, boards), place / "leaderboard.md"),
    )


def make_boards(evaluations: Evaluations) -> list[Board]:
    """One a model."""
    styles = line_styles(evaluations)
    found = []
    for contest in contests(evaluations):
        ranked = {title(metric): contest.image_ranks(metric) for metric in contest.metrics}
        ranked["All metrics"] = contest.image_ranks_over_metrics()
        by_image = {name: ranks for name, ranks in ranked.items() if ranks is not None}
        found.append(
            Board(
                contest=contest,
                findings=_findings(contest, by_image.get("All metrics")),
                by_image=by_image,
                panels=_panels(contest, evaluations, styles),
                gallery=disagreement(contest, evaluations.shown.get(contest.name)),
            )
        )
    return found


def render(evaluations: Evaluations, boards: Sequence[Board]) -> str:
    """The page as a string."""
    return render_page(
        "leaderboard.html.j2",
        evaluations=evaluations,
        boards=boards,
        models=models_contest(evaluations),
        overview=overview(boards),
        styles=line_styles(evaluations),
        key=KEY,
        unequal=UNEQUAL,
        no_mark=Mark(0, False, None),
        chance_words=CHANCE,
        span=span,
        about=about,
        rank_words=rank_words,
        p_value=p_value,
    )


def render_markdown(evaluations: Evaluations, boards: Sequence[Board]) -> str:
    """The tables as Markdown."""
    parts = [f"# {evaluations.title}"]
    if evaluations.notes:
        parts.append("\n".join(f"- {note}" for note in evaluations.notes))
    parts.append(f"Value (95 % interval over images). {KEY}")
    if (models := models_contest(evaluations)) is not None:
        parts += ["## The models", _value_table("Model", models)]
    if rows := overview(boards):
        header = ["Mean rank", *(_plain(board.contest.name) for board in boards)]
        parts += ["## Mean rank on every model", markdown(header, [[_plain(row), *cells] for row, cells in rows])]
    for board in boards:
        parts += [f"## {board.contest.name}", _value_table("Explainer", board.contest)]
        parts += [UNEQUAL] if board.unequal else []
        parts += ["\n".join(f"- {finding}" for finding in board.findings), "### Ranks", _rank_table(board)]
        parts += ["### Ranks image by image", _image_rank_table(board)] if board.by_image else []
    return "\n\n".join(parts) + "\n"


def overview(boards: Sequence[Board]) -> list[tuple[str, list[str]]]:
    """Row -> its mean rank on every model, best mean of these first; empty for one model."""
    if len(boards) < 2:
        return []
    means = {board.contest.name: {s.row: s for s in board.contest.standings} for board in boards}
    rows = dict.fromkeys(row for board in boards for row in board.contest.rows)

    def mean(row: str) -> tuple[int, float]:
        known = [some[row].mean for some in means.values() if row in some and np.isfinite(some[row].mean)]
        return -len(known), float(np.mean(known)) if known else np.inf

    return [
        (row, [rank_words(some[row]) if row in some else "–" for some in means.values()])
        for row in sorted(rows, key=mean)
    ]


def rank_words(standing: Standing) -> str:
    """A mean rank; in brackets where a metric is missing from it."""
    if np.isnan(standing.mean):
        return "–"
    return f"{standing.mean:.2f}" if standing.complete else f"({standing.mean:.2f})"


def span(figure: Figure, metric: str) -> str:
    """The interval of a value."""
    if np.isnan(figure.low):
        return "no interval"
    return f"{number(figure.low, metric)} to {number(figure.high, metric)}"


def about(figure: Figure, metric: str, mark: Mark) -> str:
    """What a cell says of itself when asked."""
    parts = [f"95 % interval {span(figure, metric)}", f"n = {figure.n}"]
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


def _findings(contest: Contest, overall: ImageRanks | None) -> list[str]:
    best = contest.standings[0] if contest.standings else None
    found = []
    if best is not None and best.complete and len(contest.rows) > 1:
        first = [s.row for s in contest.standings if s.complete and s.mean == best.mean]
        verb = "has" if len(first) == 1 else "share"
        metrics = f"the {len(contest.metrics)} metrics" if len(contest.metrics) > 1 else "the one metric"
        found.append(
            f"{_listed(first)} {verb} the best mean rank over {metrics}: {best.mean:.2f} of {len(contest.rows)}."
        )
        if len(contest.metrics) > 1:
            found.append(_front_finding(contest))
    if overall is not None:
        differ = "differ" if overall.p < 0.05 else "cannot be told apart"
        found.append(
            f"Image by image, over all metrics, the explainers {differ} (Friedman’s test, n = {overall.n}, "
            f"p {_equals(overall.p)})."
        )
    found.append(_chance_finding(contest))
    gaps = [
        f"{row} ({', '.join(title(m) for m in contest.metrics if contest.figure(row, m) is None)})"
        for row in (*contest.rows, *contest.chance)
        if not contest.standing(row).complete
    ]
    if gaps:
        found.append(
            f"No value and hence no rank: {'; '.join(gaps)}. Mean ranks over the metrics that are left are in brackets, "
            "and listed last: they do not compare with the others."
        )
    return found


def _front_finding(contest: Contest) -> str:
    """The Pareto front in words."""
    beaten = [s.row for s in contest.standings if s.complete and s.row not in contest.unbeaten]
    if not beaten:
        return "No explainer is equalled or beaten by another in all metrics at once."
    verb = "is" if len(beaten) == 1 else "are"
    return f"{_listed(beaten)} {verb} equalled or beaten in all metrics at once by another; {_listed(contest.unbeaten)} not."


def _chance_finding(contest: Contest) -> str:
    if not contest.chance:
        return "No random maps were evaluated: what is no better than chance is not known."
    cells = [
        (row, metric)
        for row in contest.rows
        for metric in contest.metrics
        if contest.figure(row, metric) and any(contest.figure(other, metric) for other in contest.chance)
    ]
    if not cells:
        return f"Nothing to set against chance ({_listed(contest.chance)}) yet."
    level = [(row, metric) for row, metric in cells if contest.mark(row, metric).chance is not None]
    if not level:
        return f"Every explainer is better than chance ({_listed(contest.chance)}) in every metric."
    which = "; ".join(
        f"{title(metric)} ({', '.join(row for row, m in level if m == metric)})"
        for metric in contest.metrics
        if any(m == metric for _, m in level)
    )
    return f"{len(level)} of {len(cells)} values are not shown to be better than chance ({_listed(contest.chance)}): {which}."


def _panels(contest: Contest, evaluations: Evaluations, styles: dict[str, tuple[str, str]]) -> list[Panel]:
    """A panel a metric that has curves, the chance rows at the back."""
    panels = []
    for metric in contest.metrics:
        found = {
            c.explainer: curve
            for c, curve in evaluations.curves.items()
            if (c.model, c.metric) == (contest.name, metric)
        }
        curves = {row: found[row] for row in (*contest.chance, *contest.rows) if row in found}
        if curves:
            ends = ", ".join(f"{row} {np.trapezoid(y, x):.3f}" for row, (x, y) in curves.items())
            panels.append(Panel(title(metric), _drawing(curves, styles), f"Area under each curve: {ends}"))
    return panels


def _drawing(curves: dict[str, np.ndarray], styles: dict[str, tuple[str, str]]) -> str:
    """Curves as an SVG drawing in a data URI; equal curves give equal bytes."""
    drawing = Drawing(figsize=(3.6, 2.5), layout="constrained", facecolor="white")
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


def _value_table(corner: str, contest: Contest) -> str:
    competing = [standing.row for standing in contest.standings]
    lines = []
    for row in (*competing, *contest.chance):
        cells = [_value_cell(contest, row, metric) for metric in contest.metrics]
        name = f"*{_plain(row)}* (chance)" if row in contest.chance else _plain(row)
        lines.append([name, *cells, " to ".join(map(str, _ends(contest.images(row))))])
    return markdown([corner, *_headings(contest), "n"], lines)


def _value_cell(contest: Contest, row: str, metric: str) -> str:
    figure = contest.figure(row, metric)
    if figure is None:
        return "–"
    mark = contest.mark(row, metric)
    value = number(figure.value, metric)
    value = {0: value, 1: f"**{value}**", 2: f"<ins>{value}</ins>"}[mark.place] + ("†" if mark.level else "")
    return f"{value} ({span(figure, metric)})" + (f", {CHANCE[mark.chance]}" if mark.chance else "")


def _rank_table(board: Board) -> str:
    contest = board.contest
    lines = [
        [
            f"*{_plain(standing.row)}* (chance)" if standing.row in contest.chance else _plain(standing.row),
            rank_words(standing),
            *(f"{standing.ranks[m]:g}" if m in standing.ranks else "–" for m in contest.metrics),
        ]
        for standing in board.standings
    ]
    return markdown(["Explainer", "Mean rank", *map(title, contest.metrics)], lines)


def _image_rank_table(board: Board) -> str:
    rows = [standing.row for standing in board.contest.standings]
    ranked = list(board.by_image.values())
    lines = [[_plain(row), *(f"{r.mean[row]:.2f}" if row in r.mean else "–" for r in ranked)] for row in rows]
    lines += [
        ["Friedman’s p", *(p_value(ranks.p) for ranks in ranked)],
        ["critical difference", *(f"{ranks.critical:.2f}" for ranks in ranked)],
        ["n", *(str(ranks.n) for ranks in ranked)],
    ]
    return markdown(["Mean rank over images", *board.by_image], lines)


def _headings(contest: Contest) -> list[str]:
    return [f"{title(metric)} {'↑' if higher else '↓'}" for metric, higher in contest.higher_is_better.items()]


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
