"""Masks of points and boxes, by GrabCut or by a segmenter of the user's."""

import inspect
from collections.abc import Callable

import numpy as np

from sightline.errors import SightlineError
from sightline.localization.clicks import segment_clicks
from sightline.localization.prompts import find_segmenter
from sightline.marking.drawing import Layer, LayerName, Points


class Segmenting:
    """Makes a mask of a layer's points and box.

    Args:
        segmenter: "grabcut", or "package.module:function". The function takes (image, points, box) as for `sightline masks`,
            or (image, points, box, outside=None) with points (N, 2) that are not on the object.

    Attributes:
        takes_outside: whether points outside the object count.

    Raises:
        SightlineError: there is no such function.
    """

    def __init__(self, segmenter: str = "grabcut") -> None:
        self.name = segmenter
        self._custom: Callable[..., np.ndarray] | None = None if segmenter == "grabcut" else find_segmenter(segmenter)
        self.takes_outside = self._custom is None or _takes_four(self._custom)

    def __call__(self, image: np.ndarray, layer: Layer, name: LayerName) -> np.ndarray:
        """Return the mask (h, w) bool of a layer of an image (h, w, 3) uint8.

        Raises:
            SightlineError: the segmenter failed, or returned no mask.
        """
        height, width = image.shape[:2]
        box = None if layer.box is None else np.array(layer.box) * [width, height, width, height]
        if name == "avoid" and box is not None and not layer.inside:
            mask = np.zeros((height, width), bool)
            x0, y0, x1, y1 = np.round(box).astype(int)
            mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
            return mask
        inside, outside = _pixels(layer.inside, width, height), _pixels(layer.outside, width, height)
        if self._custom is None:
            return segment_clicks(image, inside, outside, box)
        given = (image, inside, box, outside) if self.takes_outside else (image, inside, box)
        try:
            mask = self._custom(*given)
        except Exception as error:  # the user's code may raise anything; the page continues
            raise SightlineError(f"The segmenter {self.name} failed: {error}") from error
        if not isinstance(mask, np.ndarray) or mask.shape != (height, width) or mask.dtype != bool:
            came = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise SightlineError(f"The segmenter {self.name} returned {came}; expected bool ({height}, {width}).")
        return mask


def _pixels(points: Points, width: int, height: int) -> np.ndarray:
    return np.array(points, dtype=float).reshape(-1, 2) * [width, height]


def _takes_four(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(None, None, None, None)
    except (TypeError, ValueError):
        return False
    return True
