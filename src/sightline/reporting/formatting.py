"""Numbers and findings in plain words."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sightline.evaluation.comparison import ACCURACY, CHANCE, WORST_GROUP, Comparison, Difference
from sightline.evaluation.split_folder.folder import Key
from sightline.metrics import METRICS
from sightline.statistics.intervals import Interval

ENERGY = "energy_in_mask"
TITLES = {
    "accuracy": "Accuracy",
    "worst_group_accuracy": "Worst-group accuracy",
    "miou": "Overlap with the object (mIoU)",
    "pointing_game": "Pointing game",
    ENERGY: "Energy on the object",
    "energy_in_box": "Energy in the box",
    "pointing_game_in_box": "Pointing game (boxes)",
    "energy_in_avoid": "Energy in the region to avoid",
    "mark_removed_accuracy": "Accuracy, mark removed",
    "mark_pasted_accuracy": "Accuracy, another class's mark pasted",
    "mark_swapped_accuracy": "Accuracy, mark swapped",
    "adcc": "ADCC",
    "arcc": "ARCC",
    "morf": "MoRF",
    "lerf": "LeRF",
    "lerf_minus_morf": "LeRF − MoRF",
    "road": "ROAD",
    "ece": "Calibration error (ECE)",
    "rfs": "Relative foreground sensitivity (RFS)",
    "normalized_rfs": "Normalized RFS",
    "fgsm_accuracy": "Accuracy under FGSM",
    "foreground_noise_accuracy": "Accuracy, noise on the object",
    "background_noise_accuracy": "Accuracy, noise on the background",
    "corloc": "CorLoc",
}
SHARES = {
    "accuracy", "worst_group_accuracy", "pointing_game", ENERGY, "energy_in_box", "average_drop", "average_increase",
    "fgsm_accuracy", "foreground_noise_accuracy", "background_noise_accuracy", "box_localization", "corloc",
    "pointing_game_in_box",
    "energy_in_avoid", "mark_removed_accuracy", "mark_pasted_accuracy", "mark_swapped_accuracy",
}  # fmt: skip


def title(metric: str) -> str:
    """Return the title of a metric on the page."""
    return TITLES.get(metric, metric.replace("_", " ").capitalize())


def meanings(metrics: Iterable[str]) -> dict[str, str]:
    """Return what each metric measures, by its title and in the same order; metrics that are not registered are left out."""
    return {title(name): METRICS[name].summary for name in dict.fromkeys(metrics) if name in METRICS}


def number(value: float, metric: str) -> str:
    """Format a metric's value: shares of images or of energy as percentages, the others unchanged."""
    return f"{value:.1%}" if metric in SHARES else f"{value:.3f}"


def change(value: float, metric: str) -> str:
    """Format a difference of two values, with its sign; shares in percentage points."""
    text = f"{100 * value:+.1f}" if metric in SHARES else f"{value:+.3f}"
    return text.replace("-", "−") if float(text) else text[1:]


def interval(bounds: Interval | None, metric: str) -> str:
    """Format an interval of a difference."""
    return "–" if bounds is None else f"{change(bounds.low, metric)} to {change(bounds.high, metric)}"


@dataclass(frozen=True)
class Verdict:
    """What the report says first.

    Attributes:
        headline: one sentence on accuracy.
        findings: sentences on accuracy in detail, on the maps, and on chance.
        differences: the differences behind them.
    """

    headline: str
    findings: list[str]
    differences: list[Difference]


def verdict(comparison: Comparison) -> Verdict:
    """Return the findings on the headline split; they claim a difference only where every interval excludes zero."""
    split = comparison.splits[0]
    accuracy = split.differences[ACCURACY]
    ours, theirs = comparison.ours.label, comparison.theirs.label
    points = f"{abs(100 * accuracy.value):.1f} points"
    headline = {
        "better": f"{ours} is {points} more accurate than {theirs} on {split.split}",
        "worse": f"{ours} is {points} less accurate than {theirs} on {split.split}",
        "unclear": f"{ours} does not significantly differ from {theirs} in accuracy on {split.split}",
    }[accuracy.outcome]
    if accuracy.by_chance:
        headline = (
            f"Neither {ours} nor {theirs} is better than chance on {split.split}, where always predicting the most frequent "
            f"class has an accuracy of {accuracy.chance:.1%}"
        )
    energies = [
        split.differences[Key(ENERGY, name)]
        for name in split.explainers
        if name not in CHANCE and Key(ENERGY, name) in split.differences
    ]
    findings = [_accuracy_finding(comparison, accuracy), *(_energy_finding(comparison, energy) for energy in energies)]
    gaussian = split.differences.get(Key(ENERGY, "gaussian"))
    if gaussian is not None:
        share = number(float(np.mean(gaussian.ours)), ENERGY)
        findings.append(
            f"Chance baseline: a centered Gaussian, which ignores the image, has {share} of its energy on the object."
        )
    worst = [split.differences[WORST_GROUP]] if WORST_GROUP in split.differences else []
    return Verdict(headline, findings, [accuracy, *worst, *energies])


def _accuracy_finding(comparison: Comparison, accuracy: Difference) -> str:
    guess = f"Chance: random guessing among {len(comparison.classes)} classes has {1 / len(comparison.classes):.0%}."
    ours, theirs = _means(accuracy)
    means = f"Accuracy is {ours} compared with {theirs}, a difference of {_with_intervals(accuracy)}."
    return f"{means} {_runs(comparison)} {guess}"


def _energy_finding(comparison: Comparison, energy: Difference) -> str:
    ours, theirs = np.mean(energy.ours), np.mean(energy.theirs)
    relative = f" ({abs(ours / theirs - 1):.0%} {'more' if ours > theirs else 'less'})" if theirs > 0 else ""
    trained = comparison.ours.trained_explainers
    known = (
        f" (an explainer that the training {'used' if energy.key.explainer in trained else 'did not use'})"
        if trained
        else ""
    )
    subject = f"The {energy.key.explainer} maps of {comparison.ours.label}{known}"
    mine, other = _means(energy)
    return f"{subject} have {mine} of their energy on the object, compared with {other}{relative}: {_with_intervals(energy)}."


def _means(difference: Difference) -> tuple[str, str]:
    ours, theirs = (number(float(np.mean(v)), difference.key.metric) for v in (difference.ours, difference.theirs))
    return ours, theirs


def _with_intervals(difference: Difference) -> str:
    metric = difference.key.metric
    value = f"{change(difference.value, metric)} points"
    parts = [
        f"{interval(bounds, metric)} over {what}{'' if bounds.excludes_zero else ', which includes zero'}"
        for bounds, what in ((difference.seeds, "seeds"), (difference.images, "images"))
        if bounds is not None
    ]
    return f"{value} (95% interval{'s' if len(parts) > 1 else ''}: {'; '.join(parts)})" if parts else value


def _runs(comparison: Comparison) -> str:
    ours, theirs = len(comparison.ours.runs), len(comparison.theirs.runs)
    if ours == theirs == 1:
        return "One run each, so there is no interval over seeds."
    return (
        f"{ours} seeds each, paired by seed."
        if comparison.paired
        else f"{_count(ours)} compared with {_count(theirs)} of other seeds."
    )


def _count(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"
