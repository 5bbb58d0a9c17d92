"""Read images of any depth and color mode as 8-bit RGB. Pillow decodes, because it reads every common format."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sightline.data.files import UnclearFileError, UnreadableFileError
from sightline.errors import SightlineError

FULL_16_BITS = 65535
DARK = (
    "an image of 16 bits holds no value above 4095. If its values have 12 bits or fewer, it is read nearly black: multiply the "
    "values by 16 (of 12 bits), or save the images with 8 bits"
)
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of one channel with more than 8 bits."""

# Tags of TIFF files.
_BITS, _PHOTOMETRIC, _LOWEST, _HIGHEST = 258, 262, 340, 341


def read_image(path: Path) -> Tensor:
    """Read an image as uint8 RGB (3, H, W), turned upright by its EXIF orientation; see `decode_image`."""
    return decode_image(path, str(path))


def decode_image(source: Path | BinaryIO, name: str) -> Tensor:
    """Decode an image as uint8 RGB (3, H, W), turned upright by its EXIF orientation.

    - An image of 16 bits is scaled to 8 bits by its depth. A warning says if its values fill 12 bits or fewer.
    - What is transparent is shown on white.
    - Of several frames the first is read.

    Args:
        source: the file, or its open content.
        name: what errors call the file.

    Raises:
        UnreadableFileError: the file is missing, truncated or not an image.
        UnclearFileError: the file has float or 32-bit values without a known range.
    """
    with open_image(source, f"the image {name}") as image:
        return convert_image(image, name)


def convert_image(image: Image.Image, name: str) -> Tensor:
    """Return an image of Pillow as `decode_image` does.

    Raises:
        UnclearFileError: the image has float or 32-bit values without a known range.
    """
    if image.mode in DEEP_MODES:
        gray = ImageOps.exif_transpose(_to_8_bits(image, name))
        return F.pil_to_tensor(gray.convert("RGB"))
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        shown = Image.new("RGBA", upright.size, "white")
        shown.alpha_composite(upright.convert("RGBA"))
        upright = shown
    return F.pil_to_tensor(upright.convert("RGB"))


@contextmanager
def open_image(source: Path | BinaryIO, what: str) -> Iterator[Image.Image]:
    """Open an image in Pillow; every error of decoding becomes an `UnreadableFileError`.

    Args:
        source: the file, or its open content.
        what: what the error says cannot be read, such as "the mask a.png".
    """
    try:
        # Not by name: Pillow maps some TIFF files into memory and then turns them twice.
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file, Image.open(file) as image:
            yield image
    except (SightlineError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types for damaged files
        raise UnreadableFileError(f"cannot read {what}: {error or type(error).__name__}") from error


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale an image of one channel from the range of its depth to 0 .. 255."""
    tags = getattr(image, "tag_v2", {})
    low, high = _value_range(image, name)
    values = np.asarray(image).astype(np.float64)
    if not (np.isfinite(values).all() and values.min() >= low and values.max() <= high):
        raise UnclearFileError(
            f"the values of the image {name} range over [{values.min():g}, {values.max():g}]; expected values "
            f"in [{low:g}, {high:g}]. Save the image with 8 or 16 bits"
        )
    if high == FULL_16_BITS and 0 < values.max() < FULL_16_BITS / 16:
        warnings.warn(DARK, stacklevel=2)  # without the name, so Python shows it once
    scaled = np.rint((values - low) * (255 / (high - low))).astype(np.uint8)
    result = Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == 0 else scaled)  # 0 = white is the lowest value
    result.info["exif"] = image.getexif().tobytes()
    return result


def _value_range(image: Image.Image, name: str) -> tuple[float, float]:
    """Return the values of black and white."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        return 0, 2 ** tags.get(_BITS, (16,))[0] - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 0, FULL_16_BITS  # Pillow stores their 16 bits, scaled to the full range, in 32 bits
    low, high = (np.ravel(tags.get(tag, ())) for tag in (_LOWEST, _HIGHEST))
    if len(low) and len(high) and low[0] < high[0]:
        return float(low[0]), float(high[0])
    kind = "float" if image.mode == "F" else "32-bit or signed"
    raise UnclearFileError(
        f"the image {name} has {kind} values, and which of them are black and white is not known; "
        "save it with 8 or 16 bits"
    )
