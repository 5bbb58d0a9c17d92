"""One image in any form, as 8-bit RGB."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sightline.data.files import UnreadableFileError, locate
from sightline.data.image_files import convert_image, decode_image, read_image
from sightline.errors import SightlineError
from sightline.given.items import is_path, is_undecoded

CHANNELS = (1, 3, 4)  # gray, RGB, RGB with alpha
ROUNDING = 1e-2  # beyond [0, 1], as resizing by a cubic leaves it
FORMS = "a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W)"


@dataclass(frozen=True)
class Normalization:
    """The mean and the standard deviation of a model's input, one value per channel, for images in [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Undo the normalization of an image (C, H, W)."""
        mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (self.mean, self.std))
        return image * std + mean


def as_pixels(value: Any, name: str, undo: Normalization | None = None) -> Tensor:
    """Return an image as uint8 (3, H, W).

    Whole numbers are 0 .. 255, or 0 .. 65535 with uint16. Float values are in [0, 1].

    Args:
        value: a path, the content of a file, a PIL image, an array or a tensor with the channels first or last.
        name: what messages call the image.
        undo: the normalization that float values went through; None = they did not.

    Raises:
        UnreadableFileError: a file is missing or no image.
        SightlineError: the value is not an image, or has another range.
    """
    if is_path(value):
        return read_image(locate(Path(value), name))
    if isinstance(value, bytes):
        return decode_image(io.BytesIO(value), name)
    if isinstance(value, Mapping) and is_undecoded(value):
        content = value.get("bytes")
        return as_pixels(value["path"] if content is None else content, name)
    if isinstance(value, Image.Image):
        try:
            return convert_image(value, name)
        except SightlineError:
            raise
        except (
            Exception
        ) as error:  # a file behind the image is decoded only now, and Pillow raises errors of many types
            raise UnreadableFileError(f"cannot read the image {name}: {error or type(error).__name__}") from error
    if isinstance(value, np.ndarray | Tensor):
        return _from_values(as_array(value), name, undo)
    raise SightlineError(f"{name} is a {type(value).__name__}; expected {FORMS}")


def as_array(value: np.ndarray | Tensor) -> np.ndarray:
    """Return a tensor or an array as an array; the channels of an image (C, H, W) or (H, W, C) come first."""
    tensor = isinstance(value, Tensor)
    if isinstance(value, Tensor):
        value = value.detach().cpu().as_subclass(Tensor)
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if value.ndim != 3:
        return value
    first, last = value.shape[0] in CHANNELS, value.shape[-1] in CHANNELS
    return np.moveaxis(value, -1, 0) if last and not (tensor and first) else value


def is_float(value: Any) -> bool:
    """Whether an image has float values, which may be normalized."""
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _from_values(array: np.ndarray, name: str, undo: Normalization | None) -> Tensor:
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] not in CHANNELS or 0 in array.shape:
        raise SightlineError(f"{name} has shape {array.shape}; expected (H, W), (H, W, 3) or (3, H, W)")
    pixels = _to_8_bits(array, name, undo)
    if len(pixels) == 4:
        return convert_image(Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), "RGBA"), name)
    return torch.from_numpy(np.broadcast_to(pixels, (3, *pixels.shape[1:])).copy())


def _to_8_bits(array: np.ndarray, name: str, undo: Normalization | None) -> np.ndarray:
    kind, low, high = array.dtype.kind, array.min(), array.max()
    if kind == "b":
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if kind in "iu":
        if low < 0 or high > 255:
            raise SightlineError(f"the values of {name} range over [{low}, {high}]; expected whole numbers in 0 .. 255")
        return array.astype(np.uint8)
    if kind != "f":
        raise SightlineError(f"{name} has values of type {array.dtype}; expected numbers")
    array = array.astype(np.float64)
    if undo is not None:
        if len(array) != len(undo.mean):
            raise SightlineError(f"{name} has {len(array)} channels; the normalization has {len(undo.mean)}")
        array = undo.undo(array)
    low, high = array.min(), array.max()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # written so NaN fails it
        taken = " after the mean and std of the model were taken back" if undo is not None else ""
        raise SightlineError(
            f"the values of {name} range over [{low:.3g}, {high:.3g}]{taken}; expected float values in [0, 1], or whole "
            "numbers in 0 .. 255. Leave the normalization out of the transform of the data: sightline normalizes images itself"
        )
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8)
