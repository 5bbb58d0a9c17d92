"""What the values say, by rules that the page states."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.diagnosis.measurements import Measurement
from sightline.diagnosis.preprocessing import PreprocessingCheck
from sightline.localization.annotation import MIN_IMAGES
from sightline.statistics.bootstrap import Array

Answer = Literal[
    "wrong preprocessing", "leans on what it should avoid", "looks at the object", "leans on the background", "cannot tell",
]  # fmt: skip

MIN_SHIFT = 0.05  # a larger change of accuracy by the swap shows that the model uses the background
MAX_SHIFT = 0.20  # the change of accuracy must be smaller for a good verdict
MIN_KEPT = 0.60  # a larger share of the swaps must keep the prediction for a good verdict

RULES = (
    "Wrong preprocessing, if another normalization, order of channels, size or crop gives a significantly higher accuracy: "
    "by a paired test that is corrected for the number of alternatives, and by at least 5 points (10 for sizes and crops).",
    f"Leans on what it should avoid, if at least {MIN_IMAGES} images can get the mark of another class, and these marks change "
    f"the accuracy by significantly more than {100 * MIN_SHIFT:.0f} points. A mark is the content of a region to avoid. "
    "Without such regions, this rule does not apply.",
    f"Cannot tell, if fewer than {MIN_IMAGES} images have an object and a background, or if all images are of one class.",
    f"Leans on the background, if swapping the backgrounds changes the accuracy by significantly more than "
    f"{100 * MIN_SHIFT:.0f} points. A gain counts as much as a loss: where backgrounds mislead, the swap improves a model that "
    "uses them. Or if significantly more swaps change the prediction to that of the other background’s image than keep it. "
    "Both hold at any accuracy.",
    "Cannot tell, if the accuracy is not significantly above chance on any of: the unchanged images, the images with a gray "
    "background, the images with swapped backgrounds.",
    f"Looks at the object, if the swap changes the accuracy by less than {100 * MAX_SHIFT:.0f} points, and more than "
    f"{MIN_KEPT:.0%} of the swaps keep the prediction, both significantly.",
    "Cannot tell, if none of these holds. “Significantly” means that the whole 95% interval is on that side. Maps do not "
    "decide: they can be on the object although the prediction depends on the background, and the other way round.",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a diagnosis says first.

    Attributes:
        answer: in four words.
        because: the sentence that decided it.
        findings: sentences on all else.
    """

    answer: Answer
    because: str
    findings: list[str]


def decide_verdict(
    measured: Mapping[str, Measurement],
    classes: int,
    trained: Sequence[tuple[int, float]] | None = None,
    check: PreprocessingCheck | None = None,
    adopted: bool = False,
) -> Verdict:
    """Decide the verdict on a model by `RULES`.

    Args:
        measured: The measurements by name.
        classes: how many classes the images are of.
        trained: the number of images that training saw and the accuracy on them, and the same of the others; None = not
            known.
        check: what came of trying other ways to prepare the images.
        adopted: whether these measurements are made with the best of these.
    """
    answer, because = _decide(measured, classes)
    findings = [*_seen(trained), *_findings(measured)]
    if check is None or (check.best is None and not check.note):
        return Verdict(answer, because, findings)
    if check.best is None:
        return Verdict(answer, because, [check.note, *findings])
    said = (
        f"With {check.best.name} the accuracy is {check.accuracy:.0%}, and {check.given:.0%} with the preprocessing that was "
        f"given ({check.images} images)."
    )
    if adopted:
        return Verdict(answer, because, [f"{said} All values below use the former.", *findings])
    without = f"With the preprocessing that was given, the verdict would be: {answer}. {because}"
    return Verdict(
        "wrong preprocessing",
        f"{said} Prepare the images in this way first. The option `--preprocessing adopt` does this.",
        [without, *findings],
    )


def _seen(trained: Sequence[tuple[int, float]] | None) -> list[str]:
    if trained is None:
        return []
    (seen, right), (unseen, elsewhere) = trained
    if not seen:
        return ["The model was trained on none of these images."]
    others = f", and {elsewhere:.0%} on the other {unseen}" if unseen else ""
    return [
        f"The model was trained on {seen} of these {seen + unseen} images. Its accuracy is {right:.0%} on them{others}."
    ]


def _decide(measured: Mapping[str, Measurement], classes: int) -> tuple[Answer, str]:
    if (leans := _leans_on_marks(measured.get("mark_loss"), classes)) is not None:
        return "leans on what it should avoid", leans
    swap, kept, follows = (measured[name] for name in ("swap_loss", "prediction_kept", "prediction_follows_background"))
    if swap.n < MIN_IMAGES:
        return "cannot tell", f"Only {swap.n} images have an object and a background; at least {MIN_IMAGES} are needed."
    if classes < 2:
        return "cannot tell", "All images are of one class, so the use of the background cannot be measured."
    said = f"{_change_of_accuracy(swap)} when the objects are on the backgrounds of other images"
    right = [measured[name] for name in ("accuracy", "background_greyed", "background_swapped")]
    at_chance = not any(each.low > each.chance for each in right)
    doubt = (
        f" The accuracy on unchanged images is {_with_interval(right[0])}, where chance is {right[0].chance:.0%}. Either these "
        "backgrounds mislead the model, or the classes of the dataset are in another order than those of the model."
        if at_chance
        else ""
    )
    if swap.low > MIN_SHIFT:
        return "leans on the background", f"{said}.{doubt}"
    if swap.high < -MIN_SHIFT:
        return (
            "leans on the background",
            f"{said}. Here the backgrounds mislead the model, so it uses them.{doubt}",
        )
    if follows.low > max(kept.high, follows.chance):
        return "leans on the background", (
            f"{_with_interval(follows)} of the swaps change the prediction to that of the image of the background, and "
            f"{_with_interval(kept)} keep the prediction.{doubt}"
        )
    if at_chance:
        return "cannot tell", (
            f"The accuracy is {_with_interval(right[0])}, which is not significantly above chance "
            f"({right[0].chance:.0%}). Check "
            "that the model is trained, and that the classes of the dataset are in the order of the model’s."
        )
    if max(abs(swap.low), abs(swap.high)) < MAX_SHIFT and kept.low > MIN_KEPT:
        return "looks at the object", f"{said}, and {_with_interval(kept)} of these swaps keep the prediction."
    stays = "" if math.isnan(kept.value) else f", and {_with_interval(kept)} of these swaps keep the prediction"
    return "cannot tell", f"{said}{stays}. Neither result is significant; more images may decide it."


def _leans_on_marks(loss: Measurement | None, classes: int) -> str | None:
    """Return the sentence that states it; None where it is not significant."""
    if loss is None or loss.n < MIN_IMAGES or classes < 2 or (loss.low <= MIN_SHIFT and loss.high >= -MIN_SHIFT):
        return None
    said = f"{_change_of_accuracy(loss)} when images get the marks of other classes in their regions to avoid"
    return f"{said}." if loss.value >= 0 else f"{said}. Here the marks mislead the model, so it uses them."


def _change_of_accuracy(loss: Measurement) -> str:
    """Return by how much the accuracy falls or rises, with the interval."""
    falls = loss.value >= 0
    low, high = (loss.low, loss.high) if falls else (-loss.high, -loss.low)
    bounds = f"95% interval {100 * low:.0f} to {100 * high:.0f}".replace("-", "−")
    return f"Accuracy {'falls' if falls else 'rises'} by {abs(100 * loss.value):.0f} points ({bounds})"


def _findings(measured: Mapping[str, Measurement]) -> list[str]:
    alone, grey, rfs = measured["object_removed"], measured["background_greyed"], measured["rfs"]
    found = []
    if not math.isnan(alone.value):
        than = _compared(alone, alone.chance, "above", "below", "not significantly different from")
        aside = {
            "above": " The background predicts the class, and the model uses this.",
            "below": " The backgrounds here predict wrong classes, and without the object the model follows them.",
        }
        found.append(
            f"With the background alone the accuracy is {_with_interval(alone)}, {than} chance ({alone.chance:.0%})."
            f"{aside.get(than, '')}"
        )
        found.append(f"With the object alone, on gray, the accuracy is {_with_interval(grey)}.")
        effect = _compared(
            rfs, 0, "the object lowers the accuracy more than noise on the background",
            "the background lowers the accuracy more than noise on the object",
            "the object and noise on the background have no significantly different effect",
        )  # fmt: skip
        bounds = f"RFS {rfs.value:+.2f}, {rfs.low:+.2f} to {rfs.high:+.2f}".replace("-", "−")
        found.append(f"Noise on {effect} ({bounds}).")
    sure, ece = measured["confidence"], measured["ece"]
    if ece.low > ece.chance:
        which = "overconfident" if sure.value > measured["accuracy"].value else "underconfident"
        found.append(
            f"The model is {which}: its confidence is {sure.value:.0%} and its accuracy {measured['accuracy'].value:.0%} "
            f"(expected calibration error {ece.value:.2f}, {ece.low:.2f} to {ece.high:.2f}; {ece.chance:.2f} "
            f"for {ece.chance_of})."
        )
    removed, kept_out = measured.get("mark_removed"), measured.get("energy_in_avoid")
    if removed is not None and not math.isnan(removed.value):
        found.append(
            f"Without the marks in the regions to avoid, the accuracy on the marked images is {_with_interval(removed)}."
        )
    if kept_out is not None and not math.isnan(kept_out.value):
        found.append(f"{_with_interval(kept_out)} of the maps’ energy is in the regions to avoid.")
    energy = measured["energy_in_mask"]
    if not math.isnan(energy.value):
        against = _compared(energy, energy.chance, "more than", "less than", "not significantly different from")
        found.append(
            f"{_with_interval(energy)} of the maps’ energy is on the object, {against} that of {energy.chance_of.rstrip(',')} "
            f"({energy.chance:.0%})."
        )
    return found


def _compared(one: Measurement, value: float, above: str, below: str, neither: str) -> str:
    """Return the words for a value whose interval is above a value, below it, or neither."""
    return above if one.low > value else below if one.high < value else neither


def _with_interval(one: Measurement) -> str:
    span = f"{100 * one.low:.0f} to {100 * one.high:.0f}%".replace("-", "−")
    return f"{one.value:.0%} ({span})"


def hits_by_seen(hits: Array, seen: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """Return the number and the accuracy of the images that training saw, and of the other images."""
    return [(int(some.sum()), float(hits[some].mean()) if some.any() else math.nan) for some in (seen, ~seen)]
