"""What the figures say, by rules that the page states."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.diagnosis.measurements import Measurement
from sightline.diagnosis.preprocessing import PreprocessingCheck
from sightline.localization.annotation import MIN_IMAGES

Answer = Literal[
    "wrong preprocessing", "leans on what it should avoid", "looks at the object", "leans on the background", "cannot tell",
]  # fmt: skip

MIN_SHIFT = 0.05  # a larger change of accuracy by the swap shows that the model uses the background
MAX_SHIFT = 0.20  # the change of accuracy must be smaller for a good verdict
MIN_KEPT = 0.60  # a larger share of the swaps must keep the prediction for a good verdict

RULES = (
    "Wrong preprocessing, if the model is clearly more often right with another normalization, order of channels, size or "
    "crop: by a paired test corrected for the number of alternatives, by at least 5 points (10 for sizes and crops).",
    f"Leans on what it should avoid, if at least {MIN_IMAGES} images can get the mark of another class, and these marks change "
    f"the accuracy by more than {100 * MIN_SHIFT:.0f} points for certain. A mark is what lies in a region to avoid. Where "
    "images have no such regions, this rule says nothing.",
    f"Cannot tell, if fewer than {MIN_IMAGES} images have an object and a background, or if all images are of one class.",
    f"Leans on the background, if swapping the backgrounds changes the accuracy by more than {100 * MIN_SHIFT:.0f} points "
    "for certain. Less counts as much as more: where backgrounds mislead, a model that reads them gets better by the swap. "
    "Or if more swaps bring the answer to the other background's image than leave the answer as it was, for certain. "
    "This holds however often the model is right.",
    "Cannot tell, if the model is not better than chance for certain on any of: the images as they are, with gray, "
    "and with swapped backgrounds.",
    f"Looks at the object, if the swap changes the accuracy by less than {100 * MAX_SHIFT:.0f} points for certain, and "
    f"more than {MIN_KEPT:.0%} of the swaps leave the answer as it was for certain.",
    "Cannot tell, if none of these holds. “For certain” means: the whole 95% interval. Maps do not decide: they can lie on "
    "the object while the answer comes from the background, and the other way round.",
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
    figures: Mapping[str, Measurement],
    classes: int,
    trained: Sequence[tuple[int, float]] | None = None,
    check: PreprocessingCheck | None = None,
    adopted: bool = False,
) -> Verdict:
    """Decide the verdict on a model by `RULES`.

    Args:
        figures: by name.
        classes: how many classes the images are of.
        trained: the number of images that training saw and the accuracy on them, and the same of the others; None = not
            known.
        check: what came of trying other ways to prepare the images.
        adopted: whether the figures are those with the best of these.
    """
    answer, because = _decide(figures, classes)
    findings = [*_seen(trained), *_findings(figures)]
    if check is None or (check.best is None and not check.note):
        return Verdict(answer, because, findings)
    if check.best is None:
        return Verdict(answer, because, [check.note, *findings])
    said = (
        f"With {check.best.name} the model is right on {check.accuracy:.0%} of {check.images} images, and on "
        f"{check.given:.0%} as they were given."
    )
    if adopted:
        return Verdict(answer, because, [f"{said} All figures are with the former.", *findings])
    without = f"With the images as they were given, the verdict would be: {answer}. {because}"
    return Verdict(
        "wrong preprocessing",
        f"{said} Prepare the images in this way first; `--preprocessing adopt` does so.",
        [without, *findings],
    )


def _seen(trained: Sequence[tuple[int, float]] | None) -> list[str]:
    if trained is None:
        return []
    (seen, right), (unseen, elsewhere) = trained
    if not seen:
        return ["Training saw none of these images."]
    others = f", and on {elsewhere:.0%} of the other {unseen}" if unseen else ""
    return [f"Training saw {seen} of these {seen + unseen} images. The model is right on {right:.0%} of them{others}."]


def _decide(figures: Mapping[str, Measurement], classes: int) -> tuple[Answer, str]:
    if (leans := _leans_on_marks(figures.get("mark_loss"), classes)) is not None:
        return "leans on what it should avoid", leans
    swap, kept, follows = (figures[name] for name in ("swap_loss", "prediction_kept", "prediction_follows_background"))
    if swap.n < MIN_IMAGES:
        return "cannot tell", f"Only {swap.n} images have an object and a background; at least {MIN_IMAGES} are needed."
    if classes < 2:
        return "cannot tell", "All images are of one class, so no background could speak for another one."
    falls = swap.value >= 0
    low, high = (swap.low, swap.high) if falls else (-swap.high, -swap.low)
    bounds = f"95% interval {100 * low:.0f} to {100 * high:.0f}".replace("-", "−")
    said = (
        f"Accuracy {'falls' if falls else 'rises'} by {abs(100 * swap.value):.0f} points ({bounds}) when the objects stand on "
        "the backgrounds of other images"
    )
    right = [figures[name] for name in ("accuracy", "background_greyed", "background_swapped")]
    at_chance = not any(figure.low > figure.chance for figure in right)
    doubt = (
        f" The model is right on {_with_interval(right[0])} of the images as they are (chance {right[0].chance:.0%}), so "
        "either these backgrounds mislead it, or the data set's classes are not in its order."
        if at_chance
        else ""
    )
    if swap.low > MIN_SHIFT:
        return "leans on the background", f"{said}.{doubt}"
    if swap.high < -MIN_SHIFT:
        return (
            "leans on the background",
            f"{said}: here the backgrounds mislead the model, so it reads them.{doubt}",
        )
    if follows.low > max(kept.high, follows.chance):
        return "leans on the background", (
            f"{_with_interval(follows)} of the swaps bring the answer to the image that the background is from, and "
            f"{_with_interval(kept)} leave the answer as it was.{doubt}"
        )
    if at_chance:
        return "cannot tell", (
            f"The model is right on {_with_interval(right[0])} of the images, which is not above chance "
            f"({right[0].chance:.0%}) for certain. Has it been trained, and are the data set's classes in its order?"
        )
    if max(abs(swap.low), abs(swap.high)) < MAX_SHIFT and kept.low > MIN_KEPT:
        return "looks at the object", f"{said}, and {_with_interval(kept)} of these swaps leave its answer as it was."
    stays = "" if math.isnan(kept.value) else f", and {_with_interval(kept)} of these swaps leave its answer as it was"
    return "cannot tell", f"{said}{stays}: neither rule is met for certain. More images may settle it."


def _leans_on_marks(loss: Measurement | None, classes: int) -> str | None:
    """Return the sentence that says so; None where it does not hold for certain."""
    if loss is None or loss.n < MIN_IMAGES or classes < 2 or (loss.low <= MIN_SHIFT and loss.high >= -MIN_SHIFT):
        return None
    falls = loss.value >= 0
    low, high = (loss.low, loss.high) if falls else (-loss.high, -loss.low)
    said = (
        f"Accuracy {'falls' if falls else 'rises'} by {abs(100 * loss.value):.0f} points (95% interval {100 * low:.0f} to "
        f"{100 * high:.0f}) when images get the marks of other classes in their regions to avoid"
    ).replace("-", "−")
    return f"{said}." if falls else f"{said}: here the marks mislead the model, so it reads them."


def _findings(figures: Mapping[str, Measurement]) -> list[str]:
    alone, grey, rfs = figures["object_removed"], figures["background_greyed"], figures["rfs"]
    found = []
    if not math.isnan(alone.value):
        than = (
            "above"
            if alone.low > alone.chance
            else "below"
            if alone.high < alone.chance
            else "which cannot be told from"
        )
        aside = {
            "above": " The background gives the class away, and the model knows it.",
            "below": " The backgrounds here speak for the wrong classes, and the model listens when nothing else is there.",
        }
        found.append(
            f"From the background alone the model is right on {_with_interval(alone)} of the images, {than} chance "
            f"({alone.chance:.0%}).{aside.get(than, '')}"
        )
        found.append(f"From the object alone, on grey, it is right on {_with_interval(grey)}.")
        minds = "the object more than the background" if rfs.low > 0 else "the background more than the object"
        minds = (
            minds if rfs.low > 0 or rfs.high < 0 else "the object and on the background alike, as far as can be told"
        )
        bounds = f"RFS {rfs.value:+.2f}, {rfs.low:+.2f} to {rfs.high:+.2f}".replace("-", "−")
        found.append(f"Noise: the model minds noise on {minds} ({bounds}).")
    sure, ece = figures["confidence"], figures["ece"]
    if ece.low > ece.chance:
        which = "surer than it should be" if sure.value > figures["accuracy"].value else "less sure than it should be"
        found.append(
            f"The model is {which}: its confidence is {sure.value:.0%} and its accuracy {figures['accuracy'].value:.0%} "
            f"(expected calibration error {ece.value:.2f}, {ece.low:.2f} to {ece.high:.2f}; {ece.chance:.2f} "
            f"for {ece.chance_of})."
        )
    removed, kept_out = figures.get("mark_removed"), figures.get("energy_in_avoid")
    if removed is not None and not math.isnan(removed.value):
        found.append(
            f"Without the marks in the regions to avoid, the model is right on {_with_interval(removed)} of the marked images."
        )
    if kept_out is not None and not math.isnan(kept_out.value):
        found.append(f"The maps put {_with_interval(kept_out)} of their energy into the regions to avoid.")
    energy = figures["energy_in_mask"]
    if not math.isnan(energy.value):
        against = (
            "more than" if energy.low > energy.chance else "less than" if energy.high < energy.chance else "about what"
        )
        found.append(
            f"The maps put {_with_interval(energy)} of their energy on the object, {against} {energy.chance_of} does "
            f"({energy.chance:.0%})."
        )
    return found


def _with_interval(figure: Measurement) -> str:
    return f"{figure.value:.0%} ({_span(figure)})"


def _span(figure: Measurement) -> str:
    return f"{100 * figure.low:.0f} to {100 * figure.high:.0f}%".replace("-", "−")
