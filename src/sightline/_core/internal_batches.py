"""How many images go through a model in one call, which bounds the memory."""

from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor

from sightline.errors import SightlineError

# Pixels in one call when no size is set: 32 images of 224 x 224 fill the caches of a CPU, and 256 a GPU.
PIXELS_A_CALL = {"cpu": 32 * 224**2, "accelerator": 256 * 224**2}

# How many images like these a call takes on this machine, as `inference.fastest` measures it; called with the images and with
# whether the work is large enough to measure it now. None = no model is in its fastest form.
FASTEST_ROWS: ContextVar[Callable[[Tensor, bool], int | None] | None] = ContextVar("FASTEST_ROWS", default=None)
MANY = PIXELS_A_CALL["cpu"]  # pixels through a model: below, a measurement takes longer than it saves


def default_rows(images: Tensor) -> int:
    """Return how many images of this size (..., H, W) one call takes where nothing is measured."""
    budget = PIXELS_A_CALL["cpu" if images.device.type == "cpu" else "accelerator"]
    return max(1, budget // (images.shape[-2] * images.shape[-1]))


class InternalBatches:
    """The number of images in one call to a model.

    Args:
        size: None chooses by the images' size and by what is fastest here, and halves it where the memory does not suffice.
    """

    def __init__(self, size: int | None = None) -> None:
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise SightlineError(f"internal_batch_size is {size!r}; expected at least 1 image in a call, or None")
        self._size = size
        self._fits: int | None = None  # found by running out of memory

    def size(self, images: Tensor, count: int | None = None) -> int:
        """Return how many images of this size (..., H, W) one call takes.

        Args:
            images: what goes through the model.
            count: how many images the work takes in all; None = many.
        """
        many = count is None or count * images.shape[-2] * images.shape[-1] >= MANY
        measured = None if (fastest := FASTEST_ROWS.get()) is None else fastest(images, many)
        if self._size is not None:
            return self._size
        size = default_rows(images)
        return min(size, *(bound for bound in (measured, self._fits) if bound is not None), size)

    def map(self, call: Callable[[int, int], Tensor], count: int, images: Tensor) -> Tensor:
        """Return the joined results of `call(start, stop)` over the rows 0 .. count - 1, one internal batch after the other.

        Args:
            call: gives (stop - start, ...) for the rows from start up to stop; called again with fewer after it ran out
                of memory.
            count: number of rows.
            images: what a row costs: one of these images (..., H, W) through the model.
        """
        parts, start = [], 0
        while start < count:
            stop = min(start + self.size(images, count), count)
            try:
                parts.append(call(start, stop))
            except torch.OutOfMemoryError:
                if self._size is not None or stop - start == 1:
                    raise
                self._fits = (stop - start) // 2
            else:
                start = stop
        return torch.cat(parts)

    def fit(self, call: Callable[[int], Tensor], images: Tensor) -> Tensor:
        """Return the result of `call(rows)`, with as many rows in the model at once as the memory holds.

        Args:
            call: computes everything with at most `rows` images in one call to the model, and can be called again.
            images: (..., H, W), whose size says what one row costs.
        """
        rows = self.size(images)
        while True:
            try:
                return call(rows)
            except torch.OutOfMemoryError:
                if self._size is not None or rows == 1:
                    raise
                rows //= 2
