"""Draw the masks of a COCO file."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sightline._core.optional import requires_extra
from sightline.errors import SightlineError
from sightline.formats.coco_file import are_numbers, check_pixels
from sightline.formats.frames import Frame

Segmentation = list[list[float]] | dict[str, Any]
"""Polygons x1, y1, x2, y2, ... in pixels, or run lengths."""


@dataclass(frozen=True, repr=False)
class Instances:
    """The masks of an image's instances, as COCO writes them.

    Args:
        of_class: For each mask of the image, the instances' segmentations: lists of polygons x1, y1, x2, y2, ... in pixels, or
            run lengths as a dict.
        per_class: Whether there is a mask for each class; otherwise there is one.
        told: What distinguishes the instances, for the fingerprint.
        frame: The image on which the segmentations were drawn; None = the upright image of any size.
    """

    of_class: tuple[tuple[Any, ...], ...] = field(compare=False)
    per_class: bool
    told: str
    frame: Frame | None = None

    def __repr__(self) -> str:
        return self.told

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) or (K, height, width) uint8, 1 where an instance is.

        Raises:
            SightlineError: A segmentation is of another size than the image, or pycocotools is not installed.
        """
        frame = self.frame or Frame(height, width)
        if frame.upright != (height, width):
            raise SightlineError(
                f"{self.told}: drawn for {frame.upright} rows and columns; the image has {(height, width)}"
            )
        masks = torch.stack([self._draw(some, frame.height, frame.width) for some in self.of_class])
        return frame.turn_mask(masks if self.per_class else masks[0])

    def _draw(self, segmentations: tuple[Any, ...], height: int, width: int) -> Tensor:
        with requires_extra("coco", "a mask of a COCO file"):
            from pycocotools import mask as coco_mask

        encoded = []
        for given in segmentations:
            if isinstance(given, dict):
                if list(given["size"]) != [height, width]:
                    raise SightlineError(
                        f"{self.told}: a mask of {given['size']} rows and columns; {[height, width]} expected"
                    )
                packed = isinstance(given["counts"], str | bytes)
                encoded.append(given if packed else coco_mask.frPyObjects(given, height, width))
            else:
                encoded += [coco_mask.frPyObjects([polygon], height, width)[0] for polygon in given]
        if not encoded:
            return torch.zeros(height, width, dtype=torch.uint8)
        return torch.from_numpy(coco_mask.decode(coco_mask.merge(encoded)))


def segmentation_of(annotation: dict[str, Any], where: str) -> Segmentation | None:
    """Return the polygons or the run lengths of an annotation; None if the annotation has none.

    A single polygon may stand without the list around it.

    Args:
        annotation: An entry of the file.
        where: The annotation's name for messages.

    Raises:
        SightlineError: The segmentation is of another form.
    """
    given = annotation.get("segmentation")
    if given is None or given == [] or given == {}:
        return None
    if isinstance(given, dict):
        _check_runs(given, where)
        return given
    polygons = [given] if isinstance(given, list) and are_numbers(given) else given
    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise SightlineError(f"{where}: segmentation is {given!r:.80}; expected a list of polygons or run lengths")
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not are_numbers(polygon):
            raise SightlineError(
                f"{where}: a polygon of the segmentation is {polygon!r:.80}; expected finite numbers x1, y1, x2, y2, x3, y3, "
                "... of three points or more"
            )
        x, y = polygon[::2], polygon[1::2]
        check_pixels((min(x), min(y), max(x), max(y)), where, f"around the polygon {polygon!r:.60}")
    return polygons


def check_runs_fit(segmentation: Segmentation | None, frame: Frame, where: str) -> None:
    """Reject run lengths that were counted on an image of another size.

    Raises:
        SightlineError: they were.
    """
    if isinstance(segmentation, dict) and segmentation["size"] != [frame.height, frame.width]:
        raise SightlineError(
            f"{where}: the size of the run lengths is {segmentation['size']}; expected {[frame.height, frame.width]}, the "
            "height and width of the image"
        )


def area_of(annotation: dict[str, Any], segmentation: Segmentation | None) -> float:
    """Return the area of an annotation in pixels: as the file tells it, else of the segmentation, else of the box."""
    told: Any = annotation.get("area")
    if are_numbers([told]) and told > 0:
        return float(told)
    if isinstance(segmentation, dict):
        if not isinstance(segmentation["counts"], str):
            return float(sum(segmentation["counts"][1::2]))
        with requires_extra("coco", "a mask of a COCO file"):
            from pycocotools import mask as coco_mask
        return float(coco_mask.area(segmentation))
    if segmentation is not None:
        return sum(map(_polygon_area, segmentation))
    box = annotation.get("bbox") or [0, 0, 0, 0]
    return float(box[2] * box[3])


def _polygon_area(polygon: list[float]) -> float:
    x, y = polygon[::2], polygon[1::2]
    return abs(math.fsum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def _check_runs(runs: dict[str, Any], where: str) -> None:
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise SightlineError(f"{where}: the size of the run lengths is {size!r}; expected [height, width] in pixels")
    if isinstance(counts, str) and counts:
        return
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise SightlineError(
            f"{where}: the counts of the run lengths are {counts!r:.80}; expected whole numbers or a text"
        )
    if sum(counts) != size[0] * size[1]:
        raise SightlineError(
            f"{where}: the run lengths cover {sum(counts)} pixels; expected {size[0] * size[1]}, as their size is {size}"
        )
