"""The values of a diagnosis: each with its interval and a chance baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sightline.metrics import expected_calibration_error, normalized_rfs
from sightline.statistics.bootstrap import Array, over_images, weighted_mean
from sightline.statistics.intervals import Interval

Columns = Mapping[str, Array]


@dataclass(frozen=True)
class Measurement:
    """One value.

    Attributes:
        name: what it is called in the JSON file.
        title: what it is called on the page.
        value: over the images that have one; NaN where none has.
        low: lower end of the 95 % bootstrap interval over images.
        high: its upper end.
        n: images that have a value.
        chance: what is scored without looking.
        chance_of: who scores that.
        reading: how to read it, in a sentence.
        share: whether it is a share, to be shown in per cent.
    """

    name: str
    title: str
    value: float
    low: float
    high: float
    n: int
    chance: float
    chance_of: str
    reading: str
    share: bool = True


# name -> title, and how to read it
WORDS = {
    "accuracy": ("Accuracy, images unchanged", "Share of images with a correct prediction. Higher is better."),
    "confidence": ("Confidence", "Mean probability of the predicted class. It should equal the accuracy."),
    "ece": (
        "Expected calibration error (ECE)",
        "Mean distance between confidence and accuracy, over 15 intervals of the confidence. Lower is better.",
    ),
    "background_noised": (
        "Accuracy, noise on the background",
        "Gaussian noise of seven strengths around the object, the mean over them. It hardly affects a model that uses the "
        "object.",
    ),
    "background_greyed": ("Accuracy, background gray", "Only the object is left. Higher is better."),
    "background_swapped": (
        "Accuracy, background swapped",
        "The object is on the background of an image of another class, whose own object is painted over. Higher is better.",
    ),
    "object_noised": (
        "Accuracy, noise on the object",
        "The same noise on the object. A model that uses the object loses more accuracy here than by noise on the background.",
    ),
    "object_removed": (
        "Accuracy, background alone",
        "The object is painted over. An accuracy above chance shows that the background predicts the class.",
    ),
    "swap_loss": (
        "Accuracy lost by the swap",
        "Accuracy with unchanged images minus accuracy with swapped backgrounds, in percentage points. 0 is best. A value far "
        "from 0, positive or negative, shows that the model uses the background.",
    ),
    "prediction_kept": (
        "Swaps that keep the prediction",
        "Share of the swaps between images with different predictions. Higher is better.",
    ),
    "prediction_follows_background": (
        "Swaps that bring the background’s prediction",
        "Share of these swaps after which the model predicts the class that it predicts for the image of the background. "
        "Lower is better.",
    ),
    "rfs": (
        "Relative foreground sensitivity (RFS)",
        "Accuracy with noise on the background minus accuracy with noise on the object, from −1 to 1. Positive = the object "
        "matters more. Higher is better.",
    ),
    "normalized_rfs": (
        "Normalized RFS",
        "RFS divided by the largest value that is possible at this accuracy, from −1 to 1. Higher is better.",
    ),
    "energy_in_mask": (
        "Energy of the maps on the object",
        "Share of the sum of the saliency map that is on the object. Higher is better.",
    ),
    "pointing_game": (
        "Pointing game",
        "Share of images where the maximum of the saliency map is on the object. Higher is better.",
    ),
    "energy_in_avoid": (
        "Energy of the maps in the region to avoid",
        "Share of the sum of the saliency map in the region that should not matter, such as a stamp. Lower is better.",
    ),
    "mark_removed": (
        "Accuracy, mark removed",
        "The region to avoid is filled from its surroundings. Higher is better.",
    ),
    "mark_pasted": (
        "Accuracy, another class’s mark pasted",
        "The mark of an image of another class is added to the unchanged image. Higher is better.",
    ),
    "mark_swapped": (
        "Accuracy, mark swapped",
        "The mark of an image of another class replaces the mark of the image. Higher is better.",
    ),
    "mark_loss": (
        "Accuracy lost to another class’s mark",
        "Accuracy with unchanged images minus accuracy with the mark swapped, or pasted where there is none, in percentage "
        "points. 0 is best. A value far from 0, positive or negative, shows that the model uses the mark.",
    ),
    "view_stability": (
        "Stability of the maps",
        "Correlation of the map with the map of the flipped or turned image, turned back, from −1 to 1. Higher is better.",
    ),
}
ACCURACIES = (
    "accuracy", "background_noised", "background_greyed", "background_swapped", "object_noised", "object_removed",
    "mark_removed", "mark_pasted", "mark_swapped",
)  # fmt: skip
NOT_SHARES = ("rfs", "normalized_rfs", "view_stability")


def chance_levels(labels: Tensor, classes: int, maps: Mapping[str, float]) -> dict[str, tuple[float, str]]:
    """Return name -> what chance scores, and who scores it.

    Args:
        labels: (n,) of the images.
        classes: Number of the model's classes.
        maps: Metric of maps -> what the baseline scores.
    """
    commonest = float(labels.bincount(minlength=classes).max() / len(labels))
    guess, equal = "random predictions", "a model that uses object and background equally"
    gaussian = "a centered Gaussian, which ignores the image,"
    return {
        **dict.fromkeys(ACCURACIES, (max(1 / classes, commonest), "always predicting the most frequent class")),
        "confidence": (1 / classes, guess),
        "swap_loss": (0.0, guess),
        "mark_loss": (0.0, guess),
        "energy_in_avoid": (maps.get("energy_in_avoid", float("nan")), gaussian),
        "prediction_kept": (1 / classes, guess),
        "prediction_follows_background": (1 / classes, guess),
        "rfs": (0.0, equal),
        "normalized_rfs": (0.0, equal),
        "energy_in_mask": (maps["energy_in_mask"], gaussian),
        "pointing_game": (maps["pointing_game"], gaussian),
        "view_stability": (maps["view_stability"], "random weights on the same features"),
    }


def measure(columns: Columns, chances: Mapping[str, tuple[float, str]]) -> list[Measurement]:
    """Every value with its interval; all intervals are of the same bootstrap draws.

    Args:
        columns: name -> (n,) each image's value, NaN where it has none. "normalized_rfs" is made of the two noise columns,
            "ece" of "confidence" and "accuracy".
        chances: name -> what chance scores, and who scores it.
    """
    known = {name: ~np.isnan(column) for name, column in columns.items()}
    if "background_noised" in known:
        known["normalized_rfs"] = known["background_noised"]
    if "confidence" in known:
        known["ece"] = known["confidence"]
    names = [name for name in WORDS if name in known and known[name].any()]
    n = len(next(iter(columns.values())))
    values = dict(zip(names, _statistics(names, np.ones((1, n)), columns)[0])) if names else {}
    intervals = dict(zip(names, over_images(n, lambda counts: _statistics(names, counts, columns)))) if names else {}
    nothing = Interval(np.nan, np.nan)
    found = []
    for name in (name for name in WORDS if name in known):
        title, reading = WORDS[name]
        value, interval = float(values.get(name, np.nan)), intervals.get(name, nothing)
        found.append(
            Measurement(
                name, title, value, interval.low, interval.high, int(known[name].sum()), *chances[name], reading,
                name not in NOT_SHARES,
            )
        )  # fmt: skip
    return found


def calibrated_ece(confidence: Array, rounds: int = 200) -> float:
    """Return the mean ECE of a perfectly calibrated model with these confidences (n,)."""
    hits = np.random.default_rng(0).random((rounds, len(confidence))) < confidence
    sure = torch.from_numpy(confidence).expand(rounds, -1)
    return float(expected_calibration_error(sure, torch.from_numpy(hits.astype(float))).mean())


def by_class(columns: Columns, labels: Tensor, classes: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """For each class that has images: measurement -> [value, low, high, n]; the class that loses most by the swap first."""
    found: dict[str, dict[str, list[float]]] = {}
    none = {name: (float("nan"), "") for name in WORDS}
    for label in labels.unique().tolist():
        rows = (labels == label).numpy()
        some = measure({name: values[rows] for name, values in columns.items()}, none)
        found[classes[label]] = {f.name: [f.value, f.low, f.high, f.n] for f in some}

    def loss(name: str) -> float:
        value = found[name]["swap_loss"][0]
        return float("inf") if np.isnan(value) else -value

    return {name: found[name] for name in sorted(found, key=loss)}


def _statistics(names: Sequence[str], counts: Array, columns: Columns) -> Array:
    """Return the values (R, M) under the counts (R, n) of each image in R bootstrap rounds."""
    return np.stack([_statistic(name, counts, columns) for name in names], 1)


def _statistic(name: str, counts: Array, columns: Columns) -> Array:
    """Return one value (R,) under the counts (R, n) of each image in R bootstrap rounds."""
    if name == "ece":
        confidence, hits = (torch.from_numpy(columns[each]) for each in ("confidence", "accuracy"))
        return expected_calibration_error(confidence, hits, weights=torch.from_numpy(counts)).numpy()
    if name != "normalized_rfs":
        return weighted_mean(counts, columns[name])
    background, foreground = (weighted_mean(counts, columns[f"{region}_noised"]) for region in ("background", "object"))
    rfs, accuracy = torch.from_numpy(background - foreground), torch.from_numpy((background + foreground) / 2)
    return np.where(np.isnan(background), np.nan, normalized_rfs(rfs, accuracy).numpy())
