"""What a ranking table says, in sentences."""

from collections.abc import Sequence

from sightline.evaluation.ranking import RankingTable
from sightline.reporting.formatting import title
from sightline.reporting.leaderboard.words import p_value
from sightline.statistics.pairs import LEVEL
from sightline.statistics.ranks import ImageRanks


def list_findings(table: RankingTable, overall: ImageRanks | None) -> list[str]:
    """Return the findings: the best, the Pareto front, Friedman's test over all metrics, chance, and gaps."""
    best = table.rankings[0] if table.rankings else None
    found = []
    if best is not None and best.complete and len(table.rows) > 1:
        first = [s.row for s in table.rankings if s.complete and s.mean == best.mean]
        has = "has" if len(first) == 1 else "share"
        metrics = f"the {len(table.metrics)} metrics" if len(table.metrics) > 1 else "the one metric"
        found.append(
            f"{join_names(first)} {has} the best mean rank over {metrics}: {best.mean:.2f} (1 is best, {len(table.rows)} "
            "is last)."
        )
        if len(table.metrics) > 1:
            found.append(_front_finding(table))
    if overall is not None:
        p = p_value(overall.p) if overall.p < 0.001 else f"= {p_value(overall.p)}"
        differ = "differ significantly" if overall.p < LEVEL else "do not differ significantly"
        found.append(
            f"Ranked on each image over all metrics, the explainers {differ} (Friedman’s test, {overall.n} images, "
            f"p {p})."
        )
    found.append(_chance_finding(table))
    gaps = [
        f"{row} ({', '.join(title(m) for m in table.metrics if table.value(row, m) is None)})"
        for row in (*table.rows, *table.chance)
        if not table.ranking(row).complete
    ]
    if gaps:
        found.append(
            f"Without a value, and therefore without a rank: {'; '.join(gaps)}. Their mean ranks over the other metrics are in "
            "brackets and come last, because they cannot be compared with the others."
        )
    return found


def _front_finding(table: RankingTable) -> str:
    """Describe the Pareto front in words."""
    beaten = [s.row for s in table.rankings if s.complete and s.row not in table.unbeaten]
    if not beaten:
        return "The best explainer depends on the metric: none is at least as good as another one in every metric."
    others = join_names(table.unbeaten)
    return (
        f"For {join_names(beaten)}, another explainer is at least as good in every metric. {others}: every other explainer "
        "is worse in at least one metric."
    )


def _chance_finding(table: RankingTable) -> str:
    if not table.chance:
        return (
            "No chance baseline was evaluated, so it is not known which values are at chance level. Add the explainer "
            "randomcam."
        )
    cells = [
        (row, metric)
        for row in table.rows
        for metric in table.metrics
        if table.value(row, metric) and any(table.value(other, metric) for other in table.chance)
    ]
    if not cells:
        return f"No value can be compared with chance ({join_names(table.chance)}) yet."
    level = [(row, metric) for row, metric in cells if table.mark(row, metric).chance is not None]
    if not level:
        return f"Every explainer is significantly better than chance ({join_names(table.chance)}) in every metric."
    which = "; ".join(
        f"{title(metric)} ({', '.join(row for row, m in level if m == metric)})"
        for metric in table.metrics
        if any(m == metric for _, m in level)
    )
    return (
        f"{len(level)} of {len(cells)} values are not significantly better than chance ({join_names(table.chance)}): "
        f"{which}."
    )


def join_names(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)
