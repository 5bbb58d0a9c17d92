"""Reading pictures and masks from disk. Pillow does it, because it reads every format and keeps palette indices."""

import os
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sightline.errors import MissingFileError, SightlineError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


class UnreadableFileError(SightlineError):
    """A file that is missing, truncated, or no picture."""


def locate(path: str | Path, argument: str) -> Path:
    """The file or folder of that name, seen from here or else from the folder that SIGHTLINE_DATA names.

    Args:
        path: absolute, relative, or starting with `~`.
        argument: whose value this is, for the message.

    Raises:
        MissingFileError: there is nothing in either place.
    """
    wanted = Path(path).expanduser()
    base = os.environ.get("SIGHTLINE_DATA")
    places = [wanted, Path(base, wanted)] if base and not wanted.is_absolute() else [wanted]
    for place in places:
        if place.exists():
            return place
    raise MissingFileError(f"{argument}: nothing at {' or '.join(map(str, places))}")


def list_images(folder: Path) -> list[Path]:
    """Every picture under a folder, at any depth, in a fixed order; hidden files are left out."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


def read_image(path: Path) -> Tensor:
    """A picture as uint8 RGB (3, H, W), turned upright by its EXIF orientation.

    Raises:
        UnreadableFileError: the file is missing, truncated or no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            return F.pil_to_tensor(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: broken PNGs
        raise UnreadableFileError(f"cannot read the image {path}: {error}") from error


def read_mask(path: Path, meaning: Tensor) -> Tensor:
    """A mask as uint8 (H, W), or (K, H, W), with 0 = background, 1 = object, 255 = ignore.

    Args:
        path: a picture of one channel or with a palette, whose indices count; colours are read as grey values.
        meaning: (256,) uint8, what each value of the file stands for, or (K, 256) for K masks.

    Raises:
        UnreadableFileError: the file is missing, truncated or no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            values = F.pil_to_tensor(picture if picture.mode in ("L", "P") else picture.convert("L"))[0]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(f"cannot read the mask {path}: {error}") from error
    return meaning[..., values.int()]


def mask_meaning(ignore: int | None = None) -> Tensor:
    """The usual reading of a mask file: 0 = background, `ignore` = ignore, every other value = object."""
    meaning = torch.ones(256, dtype=torch.uint8)
    meaning[0] = 0
    if ignore is not None:
        if not 0 <= ignore <= 255:
            raise SightlineError(f"ignore is {ignore}; expected a mask's value in 0 .. 255")
        meaning[ignore] = 255
    return meaning
