"""The leaderboard as a page."""

from collections.abc import Sequence
from pathlib import Path

from sightline.evaluation.grid_folder import Evaluations, read_evaluations
from sightline.evaluation.ranking import CellMark, model_ranking_table
from sightline.reporting.formatting import meanings
from sightline.reporting.leaderboard.curves import line_styles
from sightline.reporting.leaderboard.sections import Section, make_sections, overview
from sightline.reporting.leaderboard.tables import render_markdown
from sightline.reporting.leaderboard.words import CHANCE, KEY, UNEQUAL, about, p_value, page_title, rank_words, span
from sightline.reporting.page import render_page, write_page


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


def render(evaluations: Evaluations, sections: Sequence[Section]) -> str:
    """Render the page as a string."""
    models = model_ranking_table(evaluations)
    tables = [table for table in (models, *(section.table for section in sections)) if table is not None]
    return render_page(
        "leaderboard.html.j2",
        evaluations=evaluations,
        title_of_page=page_title(evaluations),
        sections=sections,
        models=models,
        meanings=meanings(metric for table in tables for metric in table.metrics),
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
