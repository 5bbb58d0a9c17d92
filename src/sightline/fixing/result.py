"""What `fix` returns."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from sightline.fixing.protocol import Figure
from sightline.network.input_spec import InputSpec


@dataclass(frozen=True)
class Candidate:
    """A way to refit, with what it reached.

    Attributes:
        trunk: the network's name.
        attention: whether features are averaged by an attention.
        strength: of the linear head's penalty.
        weight: of the unchanged images in the fit, where changed ones have 1.
        accuracy: on marked images with what must not matter exchanged, by heads that have not seen them.
        unchanged: on the marked unchanged images, likewise.
    """

    trunk: str
    attention: bool
    strength: float
    weight: float
    accuracy: float
    unchanged: float


@dataclass(frozen=True)
class Fixed:
    """A classifier with a new head, and the measurements before and after.

    Attributes:
        model: takes what the given model takes and answers its classes; in eval mode.
        input_spec: the normalization and the size of its input, those of the given model.
        classes: the name of each class.
        helped: whether it is better where what must not matter is exchanged, significantly, and better than guessing there.
        summary: what the refit did, in plain sentences.
        table: values before and after, each with the interval of the second.
        chosen: the network and the head that cross-validation chose.
        candidates: all that was tried.
        masks: (h, w) uint8 with 1 = object, by image; those that were found too.
        notes: what was assumed, found or left out.
        seconds: that each step took.
        report: the page; None where no output was asked for.

    Examples:
        >>> digits = sl.data.create_dataset("digits", size=32, copies=1)  # bundled; the background predicts the digit
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=5)
        >>> fixed = sl.fix(model, digits["val"], size=32, mean=[0.5], std=[0.5], pretrained="none")
        >>> fixed.helped in (True, False), len(fixed.classes), len(fixed.masks)
        (True, 5, 180)
    """

    model: nn.Module
    input_spec: InputSpec
    classes: list[str]
    helped: bool
    summary: str
    table: list[Figure]
    chosen: Candidate
    candidates: list[Candidate]
    masks: dict[str, np.ndarray]
    notes: list[str]
    seconds: dict[str, float]
    report: Path | None = None

    def __str__(self) -> str:
        return self.summary
