"""Which image a person sees next."""

import threading
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np

from sightline.errors import SightlineError

RESERVED = 300.0  # seconds for which an image that one person sees is not given to another


class Queue:
    """Gives the images whose answer depends most on what is outside the object first.

    Args:
        scores: how much each image's answer depends on what is outside; NaN comes last.
        clock: seconds.

    Raises:
        SightlineError: the list of images is empty.
    """

    def __init__(self, scores: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        if not len(scores):
            raise SightlineError("scores is empty; expected at least one image to mark")
        values = np.nan_to_num(np.asarray(scores, dtype=float), nan=-np.inf)
        self.order: list[int] = np.argsort(-values, kind="stable").tolist()
        self.rank = {image: place for place, image in enumerate(self.order)}
        self._clock = clock
        self._lock = threading.Lock()
        self._reserved: dict[int, tuple[int, float]] = {}  # image: person, until when

    def next(self, person: int, done: Collection[int], after: int | None = None) -> int | None:
        """Return the next image for a person and reserve it; None where all are done or seen by others.

        Args:
            person: who asks.
            done: images that have marks.
            after: the image that the person leaves; images behind it in the order come first.
        """
        start = 0 if after is None else self.rank[after] + 1
        with self._lock:
            now = self._clock()
            for image in (*self.order[start:], *self.order[:start]):
                holder, until = self._reserved.get(image, (person, 0.0))
                if image not in done and image != after and (holder == person or until <= now):
                    self._reserve(image, person, now)
                    return image
        return None

    def show(self, image: int, person: int) -> None:
        """Reserve an image that a person opened."""
        with self._lock:
            self._reserve(image, person, self._clock())

    def _reserve(self, image: int, person: int, now: float) -> None:
        for other in [i for i, (holder, _) in self._reserved.items() if holder == person]:
            del self._reserved[other]
        self._reserved[image] = (person, now + RESERVED)
