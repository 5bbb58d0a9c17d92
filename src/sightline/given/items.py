"""What one item of a user's data holds: an image, and where known its label, mask, region to avoid and name."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sightline.data.dataset import Sample
from sightline.errors import SightlineError

IMAGE_KEYS = ("image", "img", "images", "pixel_values", "x", "input", "jpg", "jpeg", "png", "webp", "path", "file", "filename",
              "file_name", "filepath", "file_path", "image_path", "img_path", "image_file")  # fmt: skip
LABEL_KEYS = ("label", "labels", "class", "target", "targets", "category", "cls", "y", "class_name", "label_name")
MASK_KEYS = ("mask", "masks", "segmentation_mask")
NAME_KEYS = ("name", "path", "file_name", "filename", "__key__", "id")


@dataclass(frozen=True)
class Item:
    """One item. None = it has no such part."""

    image: Any
    label: Any = None
    mask: Any = None
    avoid: Any = None
    name: str | None = None


def read_item(value: Any, place: int) -> Item:
    """Return the parts of an item: (image, label, ...), a mapping, a `Sample`, or an image alone.

    Raises:
        SightlineError: nothing or several things may be the image or the label.
    """
    if isinstance(value, Sample):
        label = value.label if isinstance(value.label, int) else value.label.nonzero()[:, 0].tolist()
        return Item(value.image, label, value.mask, value.avoid, value.path)
    if isinstance(value, Mapping):
        return _from_mapping(value, place)
    if isinstance(value, tuple | list):
        if not len(value) >= 1:
            raise SightlineError(f"item {place} of the data is empty; expected (image, label)")
        return Item(value[0], value[1] if len(value) > 1 else None, name=_path_name(value[0]))
    return Item(value, name=_path_name(value))


def _from_mapping(value: Mapping[Any, Any], place: int) -> Item:
    keys = {str(key).strip().lower(): key for key in value}
    image = find_key(keys, IMAGE_KEYS)
    if image is None:
        found = [key for key, each in value.items() if _is_picture(each)]
        image = found[0] if len(found) == 1 else None
    if image is None:
        raise SightlineError(
            f"item {place} of the data has the keys {', '.join(map(str, value))}; none of them is known "
            "to be the image. Rename that one to image"
        )
    label = find_key(keys, LABEL_KEYS)
    mask, avoid = find_key(keys, MASK_KEYS), keys.get("avoid")
    name = next((str(value[keys[key]]) for key in NAME_KEYS if key in keys and _is_name(value[keys[key]])), None)
    return Item(
        value[image],
        None if label is None else value[label],
        None if mask is None or _is_missing(value[mask]) else value[mask],
        None if avoid is None or _is_missing(value[avoid]) else value[avoid],
        _path_name(value[image]) or name,
    )


def find_key(keys: Mapping[str, Any], known: Iterable[str]) -> Any:
    """Return the key whose name in lower case is the first of those known; None if none is there."""
    return next((keys[name] for name in known if name in keys), None)


def is_undecoded(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is an image that Hugging Face has not decoded."""
    return value.keys() == {"bytes", "path"}


def is_path(value: Any) -> bool:
    """Whether a value is the path of a file."""
    return isinstance(value, str | os.PathLike)


def _path_name(value: Any) -> str | None:
    if is_path(value):
        return str(value)
    file = getattr(value, "filename", None)  # of a PIL image that comes from a file
    return file if isinstance(file, str) and file else None


def _is_picture(value: Any) -> bool:
    if isinstance(value, Mapping):
        return is_undecoded(value)
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray | Tensor) and value.ndim in (2, 3))


def _is_name(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or isinstance(value, int | PurePath)


def _is_missing(value: Any) -> bool:
    """Whether the cell of a table is empty."""
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )
