"""What every annotation tool knows of an image: regions with a label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from sightline.errors import SightlineError


@dataclass(frozen=True)
class Region:
    """A region of an image.

    Attributes:
        label: what it shows.
        mask: (H, W) bool.
    """

    label: str
    mask: np.ndarray


@dataclass(frozen=True)
class MarkedImage:
    """An image with its regions.

    Attributes:
        path: of the image, as the tool names it, with "/".
        height: in pixels.
        width: in pixels.
        regions: in the order of the tool.
    """

    path: str
    height: int
    width: int
    regions: list[Region] = field(default_factory=list)


def fill_polygon(points: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Return the pixels (H, W) bool inside a polygon of at least three points (x, y), with its outline."""
    if len(points) < 3:
        raise SightlineError(f"a polygon has {len(points)} points; expected at least 3")
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(canvas)


def fill_ellipse(x: float, y: float, radius_x: float, radius_y: float, height: int, width: int) -> np.ndarray:
    """Return the pixels (H, W) bool whose centers are in an ellipse around (x, y)."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return ((columns - x) / max(radius_x, 1e-9)) ** 2 + ((rows - y) / max(radius_y, 1e-9)) ** 2 <= 1


def fill_box(x1: float, y1: float, x2: float, y2: float, height: int, width: int) -> np.ndarray:
    """Return the pixels (H, W) bool whose centers are in a box."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns > min(x1, x2)) & (columns < max(x1, x2)) & (rows > min(y1, y2)) & (rows < max(y1, y2))


def run_lengths(values: np.ndarray) -> list[int]:
    """Return the lengths of runs of equal values in a flat bool array, that of False first, which may be 0."""
    changes = np.flatnonzero(np.diff(values.astype(np.int8))) + 1
    lengths = np.diff([0, *changes.tolist(), len(values)]).tolist()
    return [0, *lengths] if len(values) and values[0] else lengths


def from_run_lengths(lengths: Iterable[int], size: int, where: str) -> np.ndarray:
    """Return the flat bool array (size,) of such runs.

    Raises:
        SightlineError: the lengths do not add up to the size.
    """
    counts = [int(length) for length in lengths]
    if sum(counts) != size or any(count < 0 for count in counts):
        raise SightlineError(f"{where}: run lengths sum to {sum(counts)}; expected {size}, the number of pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a mask with a pixel; right and bottom are those of the last pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
