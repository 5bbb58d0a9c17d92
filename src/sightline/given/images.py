"""`as_images`: the images of data in any form, where labels do not matter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sightline.data.dataset import ImageDataset
from sightline.data.files import locate
from sightline.data.image_listing import list_images
from sightline.data.splits import Splits
from sightline.datasets.derived.joined import whole_folder
from sightline.errors import SightlineError
from sightline.given.items import is_path
from sightline.given.pixels import Normalization, as_pixels
from sightline.given.sources import LOOKED_AT, applied_normalization, find_items


def as_images(data: Any, normalization: Normalization | None = None) -> list[tuple[str, Tensor]]:
    """Return the name and the 8-bit RGB image (3, H, W) of each image of some data.

    Args:
        data: an image (a path, a PIL image, an array or a tensor), a list of images, a folder, or anything that
            `as_dataset` takes; labels are not read.
        normalization: that of the model; it is taken back where float images went through it.

    Raises:
        UnreadableFileError: a file is missing or no image.
        SightlineError: the data has no images, or another form.
    """
    found = list(_images(data, normalization))
    if not found:
        raise SightlineError("images is empty; expected at least one image")
    return found


def _images(data: Any, normalization: Normalization | None) -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Splits):
        data = whole_folder(data)
    if isinstance(data, ImageDataset):
        yield from ((data.path(index), data[index].image.as_subclass(Tensor)) for index in range(len(data)))
        return
    if is_path(data):
        given = locate(Path(data), "images")
        files = list_images(given) if given.is_dir() else [given]
        yield from ((str(file), as_pixels(file, str(file))) for file in files)
        return
    one = isinstance(data, Image.Image) or (isinstance(data, np.ndarray | Tensor) and data.ndim in (2, 3))
    items = find_items([data] if one else data, normalization)
    looked_at = [items[place] for place in range(min(LOOKED_AT, len(items)))]
    undo = applied_normalization(looked_at, normalization)
    for place in range(len(items)):
        item = items[place]
        name = item.name or f"image {place}"
        yield name, as_pixels(item.image, name, undo)
