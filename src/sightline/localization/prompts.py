"""Prompts: what a segmenter gets to know about an object, from maps or boxes; and the segmenters, which make masks of them."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_fraction
from sightline._core.user_code import load_function
from sightline.data.dataset import Sample
from sightline.errors import SightlineError
from sightline.localization.detectors import Box, BoxDetector
from sightline.localization.grabcut import center_points, grabcut
from sightline.localization.image_maps import ImageMaps

Segmenter = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], np.ndarray]
"""(image (H, W, 3) uint8, points (N, 2) xy in pixels, box (4,) xyxy in pixels or None) -> mask (H, W) bool."""


@dataclass(frozen=True)
class Prompt:
    """Where an object is, as a segmenter is told.

    Args:
        points: (N, 2) xy in pixels, on the object.
        box: (4,) xyxy in pixels, around it; None = not known.
    """

    points: Tensor
    box: Tensor | None = None


def local_maxima(saliency: Tensor, threshold: float = 0.5, distance: float = 0.1) -> Tensor:
    """Return the centres of the pixels above a threshold that are the largest within a distance, in descending order.

    Args:
        saliency: (H, W).
        threshold: least value, itself left out.
        distance: how far apart two maxima are at least, across or down, as a share of the shorter side in (0, 1]. Of equal
            ones that are closer, the first in row order counts.

    Returns:
        (N, 2) float32, xy in pixels; N may be 0.

    Raises:
        SightlineError: an argument is not as above.
    """
    if not isinstance(saliency, Tensor) or saliency.ndim != 2 or not saliency.isfinite().all():
        raise SightlineError(f"saliency is {getattr(saliency, 'shape', type(saliency))}; expected a finite map (H, W)")
    check_fraction("(0, 1]", distance=distance)
    near = max(1, math.ceil(distance * min(saliency.shape)))
    window = 2 * near - 1  # pixels that are `near` apart do not see each other
    greatest = F.max_pool2d(saliency[None].float(), (window, 1), 1, (near - 1, 0))
    greatest = F.max_pool2d(greatest, (1, window), 1, (0, near - 1))[0]
    found = ((saliency == greatest) & (saliency > threshold)).nonzero()
    found = found[saliency[found[:, 0], found[:, 1]].argsort(descending=True, stable=True)]
    kept = []
    while len(found):
        kept.append(found[0])
        found = found[(found - found[0]).abs().amax(1) >= near]
    return torch.stack(kept).flip(1) + 0.5 if kept else torch.zeros(0, 2)


class Prompter:
    """Prompts for images: the local maxima of their maps, their boxes, both, or their centers.

    Args:
        maps: gives the images' maps; None = no points.
        boxes: gives the images' boxes; None = no boxes. Each box of an image is its own prompt, with the points in it.
        threshold: as for `local_maxima`.
        distance: as for `local_maxima`.
        center: take a disc around each image's center for the object, instead of maps and boxes.

    Raises:
        SightlineError: neither maps nor boxes nor the center, the center with others, or an argument out of its range.
    """

    def __init__(
        self,
        maps: ImageMaps | None = None,
        boxes: BoxDetector | None = None,
        *,
        threshold: float = 0.5,
        distance: float = 0.1,
        center: bool = False,
    ) -> None:
        if maps is None and boxes is None and not center:
            raise SightlineError("prompts come from maps or boxes, or from the center; neither was given")
        if center and not (maps is None and boxes is None):
            raise SightlineError("center was given with maps or boxes; expected one of them")
        check_fraction("[0, 1)", threshold=threshold)
        local_maxima(torch.zeros(1, 1), threshold, distance)  # rejects a distance out of its range
        self.maps, self.boxes, self.threshold, self.distance = maps, boxes, threshold, distance
        self.center = center

    @property
    def facts(self) -> dict[str, Any]:
        """What the prompts are of; JSON values."""
        if self.center:
            return {"points": "center", "boxes": None}
        points = (
            {} if self.maps is None else {"threshold": self.threshold, "distance": self.distance, **self.maps.facts}
        )
        return {"points": points or None, "boxes": None if self.boxes is None else self.boxes.facts}

    def __call__(self, samples: Sequence[Sample]) -> list[list[Prompt]]:
        """Return the prompts of each image; an empty list if its map has no maximum above the threshold and it has no box."""
        if self.center:
            return [[Prompt(center_points(sample.image.shape[-2:]))] for sample in samples]
        points = [torch.zeros(0, 2) for _ in samples]
        if self.maps is not None:
            points = [local_maxima(one, self.threshold, self.distance) for one in self.maps(samples)]
        if self.boxes is None:
            return [[Prompt(some)] if len(some) else [] for some in points]
        found = [[box.within(s.image.shape[-2:]) for box in boxes] for s, boxes in zip(samples, self.boxes(samples))]
        return [[_in_box(some, box) for box in boxes if box is not None] for some, boxes in zip(points, found)]


def _in_box(points: Tensor, box: Box) -> Prompt:
    edges = torch.tensor(box.xyxy)
    inside = ((points >= edges[:2]) & (points < edges[2:])).all(1)
    return Prompt(points[inside], edges)


def segment(sample: Sample, prompts: Sequence[Prompt], segmenter: Segmenter) -> Tensor:
    """Return the mask (H, W) bool of the objects in an image: the union of the segmenter's answers to each prompt.

    Raises:
        SightlineError: the segmenter failed, or returned something else than a mask of the image's size.
    """
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    whole = np.zeros(image.shape[:2], dtype=bool)
    for prompt in prompts:
        box = None if prompt.box is None else prompt.box.numpy()
        try:
            mask = segmenter(image, prompt.points.numpy(), box)
        except Exception as error:  # the user's code may raise anything
            raise SightlineError(f"the segmenter failed at {sample.path}: {type(error).__name__}: {error}") from error
        if not isinstance(mask, np.ndarray) or mask.shape != whole.shape or mask.dtype != bool:
            came = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise SightlineError(
                f"the segmenter returned {came} for {sample.path}; expected a bool array {whole.shape}"
            )
        whole |= mask
    return torch.from_numpy(whole)


def grabcut_mask(image: np.ndarray, points: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """GrabCut as a segmenter (see `sightline.localization.grabcut`)."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    where = None if box is None else torch.from_numpy(box)[None]
    return grabcut(pixels, where, [torch.from_numpy(points)])[0].bool().numpy()


def find_segmenter(name: str) -> Segmenter:
    """Return the segmenter with this name: "grabcut", or a function of the user as "package.module:function".

    Raises:
        SightlineError: there is no such module or function.
    """
    if name == "grabcut":
        return grabcut_mask
    if ":" not in name:
        raise SightlineError(f"segmenter is {name!r}; expected 'grabcut' or 'package.module:function'")
    function = load_function(name, "segmenter")
    try:
        inspect.signature(function).bind(None, None, None)
    except ValueError:
        pass  # a function in C may have no signature
    except TypeError as error:
        raise SightlineError(f"segmenter {name!r} cannot be called with (image, points, box): {error}") from error
    return function
