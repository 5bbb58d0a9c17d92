"""What a ranking table says, in sentences."""

from collections.abc import Sequence

from sightline.evaluation.ranking import RankingTable
from sightline.evaluation.statistics import LEVEL, ImageRanks
from sightline.reporting.formatting import title
from sightline.reporting.leaderboard.words import p_value


def list_findings(table: RankingTable, overall: ImageRanks | None) -> list[str]:
    """Return the findings: the best, the Pareto front, Friedman's test over all metrics, chance, and gaps."""
    best = table.rankings[0] if table.rankings else None
    found = []
    if best is not None and best.complete and len(table.rows) > 1:
        first = [s.row for s in table.rankings if s.complete and s.mean == best.mean]
        verb = "has" if len(first) == 1 else "share"
        metrics = f"the {len(table.metrics)} metrics" if len(table.metrics) > 1 else "the one metric"
        found.append(
            f"{join_names(first)} {verb} the best mean rank over {metrics}: {best.mean:.2f} of {len(table.rows)}."
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
    """Describe the Pareto front in words."""
    beaten = [s.row for s in table.rankings if s.complete and s.row not in table.unbeaten]
    if not beaten:
        return "No explainer is equalled or beaten by another in all metrics at once."
    verb = "is" if len(beaten) == 1 else "are"
    others = join_names(table.unbeaten)
    return f"{join_names(beaten)} {verb} equalled or beaten in all metrics at once by another; {others} not."


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
        return f"Nothing to set against chance ({join_names(table.chance)}) yet."
    level = [(row, metric) for row, metric in cells if table.mark(row, metric).chance is not None]
    if not level:
        return f"Every explainer is better than chance ({join_names(table.chance)}) in every metric."
    which = "; ".join(
        f"{title(metric)} ({', '.join(row for row, m in level if m == metric)})"
        for metric in table.metrics
        if any(m == metric for _, m in level)
    )
    return f"{len(level)} of {len(cells)} values are not shown to be better than chance ({join_names(table.chance)}): {which}."


def join_names(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"
