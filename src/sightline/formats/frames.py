"""The pixels that an annotation counts: those of the image as a file stores it, or of the image turned upright.

Sightline turns every image upright by its EXIF orientation. An annotation tool may have counted the stored pixels instead.
The size of the image in the annotation tells which.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sightline.errors import SightlineError

Edges = tuple[float, float, float, float]

ORIENTATION = 0x0112
SWAPPED, MIRRORED, UPSIDE_DOWN = {5, 6, 7, 8}, {2, 3, 6, 7}, {3, 4, 7, 8}  # EXIF orientations, in this order of steps


@dataclass(frozen=True)
class Frame:
    """The image on which annotations were drawn.

    Attributes:
        height: Height of that image in pixels.
        width: Width of that image in pixels.
        orientation: EXIF orientation that turns that image upright; 1 = it is upright.
        known: Whether the size of the image in the annotation tells the orientation.
    """

    height: int
    width: int
    orientation: int = 1
    known: bool = True

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (self.width, self.height) if self.orientation in SWAPPED else (self.height, self.width)

    def turn_mask(self, mask: Tensor) -> Tensor:
        """Return a mask (..., height, width) of this image as a mask of the upright image."""
        if self.orientation in SWAPPED:
            mask = mask.mT
        axes = [axis for axis, turned in ((-1, MIRRORED), (-2, UPSIDE_DOWN)) if self.orientation in turned]
        return mask.flip(axes) if axes else mask.contiguous()

    def turn_box(self, box: Edges) -> Edges:
        """Return a box (x1, y1, x2, y2) of this image as a box of the upright image."""
        x1, y1, x2, y2 = box
        if self.orientation in SWAPPED:
            x1, y1, x2, y2 = y1, x1, y2, x2
        height, width = self.upright
        if self.orientation in MIRRORED:
            x1, x2 = width - x2, width - x1
        if self.orientation in UPSIDE_DOWN:
            y1, y2 = height - y2, height - y1
        return x1, y1, x2, y2


def find_frame(path: Path, annotated: tuple[int, int] | None, where: str) -> Frame | None:
    """Return the image that annotations count the pixels of; None if the image cannot be read.

    Args:
        path: The image file.
        annotated: Height and width of the image as the annotation tells them; None = the annotation does not tell.
        where: The annotation's file, for messages.

    Raises:
        SightlineError: The image has another size.
    """
    stored = _stored_size(path)
    if stored is None:
        return None
    height, width, orientation = stored
    raw = Frame(height, width, orientation)
    upright = Frame(*raw.upright)
    if annotated not in (None, (height, width), raw.upright):
        raise SightlineError(
            f"{where}: the annotations of {path} are for {annotated[1]} x {annotated[0]} pixels (width x height); the image "
            f"has {upright.width} x {upright.height}. Scale the annotations, or use the images that were annotated"
        )
    if annotated in (None, (height, width)) and annotated in (None, raw.upright):
        return Frame(*raw.upright, known=orientation == 1)
    return raw if annotated == (height, width) else upright


def unknown_orientation(where: str, first: Path, count: int = 1) -> str:
    """Return a warning about annotations that may count stored pixels."""
    return (
        f"{where}: {count} images are turned by their EXIF orientation, and the annotations do not tell whether they "
        f"count the stored or the turned pixels; they are read as turned. The first image is {first}. To be sure, save "
        "the images upright"
    )


def _stored_size(path: Path) -> tuple[int, int, int] | None:
    """Return the height, the width and the EXIF orientation of an image file, without decoding its pixels."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            orientation = Image.Image.getexif(image).get(ORIENTATION, 1)  # the one of PNG decodes all pixels
            return image.height, image.width, orientation if orientation in range(1, 9) else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # reading the image will tell
