"""What the marking page asks of the rest of `fix`: images with maps and scores, a refit, and an export."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sightline.fixing.marks import Mark

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole is done, in [0, 1]."""


class MarkingData(Protocol):
    """The images that people mark. Index i is the same image in every attribute and method.

    Attributes:
        fingerprint: tells these images and this model from others; marks of another fingerprint are rejected.
        title: what the page says about the model and the data, with size, mean and standard deviation.
        names: the path of each image, relative and with "/"; no two are equal.
        labels: the name of each image's class.
        predicted: the name of the class that the model answers.
        scores: how much each answer depends on what is outside the object; high scores come first.
    """

    fingerprint: str
    title: str
    names: Sequence[str]
    labels: Sequence[str]
    predicted: Sequence[str]
    scores: Sequence[float]

    def image(self, index: int) -> np.ndarray:
        """Return the image as (H, W, 3) uint8, upright."""

    def map(self, index: int) -> np.ndarray:
        """Return the model's saliency map over the whole image as (h, w) in [0, 1]."""

    def suggest(self, index: int) -> np.ndarray | None:
        """Return a suggested mask of the object as (h, w) bool over the whole image; None = no suggestion."""


@dataclass(frozen=True)
class Figure:
    """One value of a refit.

    Attributes:
        name: what is measured, such as "accuracy on exchanged backgrounds".
        before: the value of the given model; None = not defined.
        after: the value of the refitted model; None = not defined.
        interval: the interval of `after`; None = not known.
    """

    name: str
    before: float | None
    after: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Refitted:
    """What a refit found.

    Attributes:
        figures: the first is drawn over the number of marks.
        summary: one or two plain sentences; they state if the refit did not help.
        helped: whether the refitted model is better.
        html: a fragment for the page, without script, style and images, with names of classes escaped.
    """

    figures: Sequence[Figure]
    summary: str
    helped: bool
    html: str = ""


class Refit(Protocol):
    """Fits the model again from the marks. It is called in a thread, one call at a time."""

    def __call__(self, marks: Mapping[int, Mark], number: int, progress: Progress) -> Refitted:
        """Fit the model again.

        Args:
            marks: by the index of the image; only images with a judgement or a mask.
            number: of this refit, from 1; `Export` names it again.
            progress: is told how far the refit is.

        Raises:
            SightlineError: the marks do not suffice; the page shows the message.
        """


class Export(Protocol):
    """Writes the fixed model and what belongs to it."""

    def __call__(self, number: int | None, marks: Mapping[int, Mark], folder: Path) -> Sequence[Path]:
        """Write files into the folder and return their paths.

        Args:
            number: the refit that people chose; None = the given model.
            marks: the marks now.
            folder: exists; the page has written the marks into it.
        """
