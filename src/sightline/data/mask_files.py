"""Read masks from files, images and arrays: values of a palette or of one channel, and objects in color, alpha or JPEG."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sightline.data.files import UnclearFileError
from sightline.data.image_files import DEEP_MODES, open_image
from sightline.errors import SightlineError

_LOSSY_FORMATS = ("JPEG2000", "AVIF", "HEIF")
_MOST_COLORS = 256
"""A mask with more colors is a photo."""


def read_mask(path: Path, meaning: Tensor, colors: Tensor | None = None) -> Tensor:
    """Read a mask from a file; see `decode_mask`."""
    return decode_mask(path, str(path), meaning, colors)


def decode_mask(source: Path | bytes, name: str, meaning: Tensor, colors: Tensor | None = None) -> Tensor:
    """Decode a mask as uint8 (H, W), or (K, H, W), with 0 = background, 1 = object, 255 = ignore.

    The mask is turned upright by its own EXIF orientation. What a pixel's value is depends on the file:

    | file | value |
    | --- | --- |
    | palette | the index, regardless of its color |
    | one channel of 8 bits, or of more with whole numbers | the number |
    | one bit | 0 or 1 |
    | gray in three channels | the gray value |

    Where every value but 0 stands for the object, colors, alpha and JPEG are read, too. The object is then what is not black,
    what is not transparent, or what is brighter than half.

    Args:
        source: the file, or its content.
        name: what errors call the file.
        meaning: (256,) uint8, what each value of the file stands for, or (K, 256) for K masks.
        colors: (256, 3) uint8, the RGB color of each value, for a file that was saved in colors or with another palette; None =
            colors stand for no value.

    Raises:
        UnreadableFileError: the file is missing, truncated or not an image.
        UnclearFileError: the file can be decoded, but it does not say which pixels are the object.
    """
    with (
        open_image(BytesIO(source) if isinstance(source, bytes) else source, f"the mask {name}") as image,
        _named(f"the mask {name}", "Save it as a PNG file of one channel, with 0 for the background"),
    ):
        values = None if colors is None else _of_known_colors(image, source, colors)
        if values is None:
            values = _values(image, source, plain=torch.equal(meaning, mask_meaning()))
        return meaning[..., values.int()]


def mask_of_image(image: Image.Image, name: str, meaning: Tensor) -> Tensor:
    """Return the mask that an image in memory shows, read as `decode_mask` reads a file.

    Raises:
        UnclearFileError: the image does not say which pixels are the object.
    """
    with _named(name, "Give one channel, with 0 for the background"):
        return meaning[..., _values(image, b"", plain=torch.equal(meaning, mask_meaning())).int()]


def mask_of_array(array: np.ndarray, name: str, meaning: Tensor) -> Tensor:
    """Return the mask that an array shows: (H, W) or (1, H, W) whole numbers, or colors (3 or 4, H, W), uint8 or in [0, 1].

    Raises:
        UnclearFileError: the array does not say which pixels are the object.
    """
    if (
        array.ndim == 3
        and array.shape[0] in (3, 4)
        and array.dtype.kind in "bf"
        and array.min() >= 0
        and array.max() <= 1
    ):
        array = np.rint(array * 255.0).astype(np.uint8)
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.dtype == np.uint8:
        return mask_of_image(Image.fromarray(np.ascontiguousarray(np.moveaxis(array, 0, -1))), name, meaning)
    with _named(name, "Give whole numbers (H, W), with 0 for the background, such as mask > 0.5"):
        if array.ndim == 3 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
            raise _UnclearError(f"is an array of {array.dtype} values of shape {array.shape}")
        return meaning[..., _of_numbers(array, plain=torch.equal(meaning, mask_meaning())).int()]


@contextmanager
def _named(name: str, advice: str) -> Iterator[None]:
    """Say which mask is not clear, and what to do."""
    try:
        yield
    except _UnclearError as error:
        raise UnclearFileError(f"{name} {error}. {advice}") from error


def mask_meaning(ignore: int | None = None) -> Tensor:
    """Return the usual reading of a mask file: 0 = background, `ignore` = ignore, every other value = object."""
    meaning = torch.ones(256, dtype=torch.uint8)
    meaning[0] = 0
    if ignore is not None:
        if not 0 <= ignore <= 255:
            raise SightlineError(f"ignore is {ignore}; expected a mask's value in 0 .. 255")
        meaning[ignore] = 255
    return meaning


def bright(pixels: Tensor) -> Tensor:
    """Return (1, H, W) uint8, 1 where any channel of an image (C, H, W) uint8 is above half; noise of JPEG is not."""
    return (pixels > 127).any(0, keepdim=True).to(torch.uint8)


class _UnclearError(Exception):
    """Why a mask is not clear; the predicate of a sentence."""


def _values(image: Image.Image, source: Path | bytes, plain: bool) -> Tensor:
    """Return the values (H, W) of a mask file.

    Args:
        image: the opened file.
        source: the file, or its content.
        plain: every value but 0 stands for the object, so an object may be 1.
    """
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _UnclearError(f"has {image.n_frames} frames; expected one")  # type: ignore[attr-defined]
    lossy = _is_lossy(image, source)
    mask = ImageOps.exif_transpose(image)
    if lossy:
        if image.format not in ("JPEG", "MPO") or not plain or mask.mode not in ("L", "RGB"):
            raise _UnclearError(f"is a {image.format} file, whose compression changes values")
        return _of_jpeg(F.pil_to_tensor(mask))
    if mask.mode == "P":
        return _of_palette(mask)
    if mask.mode == "L":
        return F.pil_to_tensor(mask)[0]
    if mask.mode == "1":
        return torch.from_numpy(np.array(mask, dtype=np.uint8))
    if mask.mode in DEEP_MODES:
        return _of_numbers(np.asarray(mask), plain)
    if mask.mode in ("LA", "RGB", "RGBA"):
        return _of_colors(F.pil_to_tensor(mask), plain, has_alpha=mask.mode.endswith("A"))
    raise _UnclearError(f"has the color mode {mask.mode}")


def _is_lossy(image: Image.Image, source: Path | bytes) -> bool:
    if image.format == "WEBP":
        with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            return b"VP8L" not in file.read(4096)  # the name of the lossless coding
    return image.format in ("JPEG", "MPO", *_LOSSY_FORMATS) or image.info.get("compression") == "jpeg"


def _of_palette(mask: Image.Image) -> Tensor:
    """Return the palette indices; a tool that saves a black and white mask with a palette may give white the index 0."""
    indices = F.pil_to_tensor(mask)[0]
    palette = np.reshape(mask.getpalette("RGB") or [], (-1, 3))
    black = {index for index in indices.unique().tolist() if index < len(palette) and not palette[index].any()}
    if black and 0 not in black and len(palette) and palette[0].any():
        raise _UnclearError(f"has a palette in which black is {min(black)} and another color is 0; it may be inverted")
    return indices


def _of_known_colors(image: Image.Image, source: Path | bytes, colors: Tensor) -> Tensor | None:
    """Return the values of a mask in known colors; None for gray values, and for indices of a palette of other colors."""
    mask = ImageOps.exif_transpose(image)
    if mask.mode not in ("P", "RGB", "RGBA") or _is_lossy(image, source):
        return None
    if mask.mode == "RGBA" and (np.asarray(mask)[..., 3] < 255).any():
        return None
    pixels = F.pil_to_tensor(mask.convert("RGB")).int()
    values = {code: value for value, code in reversed(list(enumerate(_codes(colors.T.int()).tolist())))}
    shown, places = _codes(pixels).unique(return_inverse=True)
    unknown = [code for code in shown.tolist() if code not in values]
    if unknown and mask.mode == "P":
        return None
    if unknown:
        red, green, blue = unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255
        raise _UnclearError(f"has the color ({red}, {green}, {blue}), which stands for no value of a mask")
    return torch.tensor([values[code] for code in shown.tolist()], dtype=torch.uint8)[places]


def _codes(colors: Tensor) -> Tensor:
    """Return RGB colors (3, ...) as one number each."""
    return colors[0] * 65536 + colors[1] * 256 + colors[2]


def _of_numbers(numbers: np.ndarray, plain: bool) -> Tensor:
    if not (np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all() and numbers.min() >= 0):
        raise _UnclearError(
            f"has values in [{numbers.min():g}, {numbers.max():g}] that are not all whole numbers of 0 or more"
        )
    if plain:
        return torch.from_numpy((numbers > 0).astype(np.uint8))
    if numbers.max() > 255:
        raise _UnclearError(f"has values up to {numbers.max():g}; expected 255 or less")
    return torch.from_numpy(numbers.astype(np.uint8))


def _of_colors(pixels: Tensor, plain: bool, has_alpha: bool) -> Tensor:
    """Return the gray values, or 1 for what is not black; transparent pixels are 0."""
    opaque = pixels[-1] >= 128 if has_alpha else torch.ones_like(pixels[0], dtype=torch.bool)
    colors = pixels[: len(pixels) - has_alpha]
    shown = colors[:, opaque]  # (C, pixels)
    gray = bool((shown == shown[:1]).all())
    if not plain:
        if not gray:
            raise _UnclearError("has colors, and the mask value of each color is not known")
        return colors[0] * opaque
    kinds = shown.unique(dim=1)
    if opaque.all():
        if not gray and kinds.shape[1] > _MOST_COLORS:
            raise _UnclearError(f"has {kinds.shape[1]} colors, so it is a photo")
        return (colors > 0).any(0).to(torch.uint8)
    if kinds.shape[1] == 2 and not kinds.any(0).all():
        raise _UnclearError("has transparent pixels, black ones and others; the background may be either")
    return opaque.to(torch.uint8)


def _of_jpeg(pixels: Tensor) -> Tensor:
    """Return what is brighter than half, in a black and white image whose values JPEG has changed a little."""
    brightest = pixels.amax(0)
    between = (brightest >= 64) & (brightest < 192)
    if brightest.any() and (brightest.max() < 192 or between.float().mean() > 0.1):
        raise _UnclearError("is a JPEG file that is not in black and white, and JPEG changes values")
    warnings.warn(
        "some masks are JPEG files, which do not keep exact values: a pixel of 128 or more is the object. "
        "Save masks as PNG files",
        stacklevel=2,
    )
    return bright(pixels)[0]
