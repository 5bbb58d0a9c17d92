"""A dataset of a user's own items."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from sightline.data.dataset import ImageDataset, Sample
from sightline.data.files import UnreadableFileError, locate
from sightline.data.mask_files import mask_meaning, mask_of_array, mask_of_image, read_mask
from sightline.errors import MissingFileError, SightlineError
from sightline.given.items import Item, is_path
from sightline.given.pixels import Normalization, as_array, as_pixels
from sightline.given.sources import LOOKED_AT, Items, applied_normalization


class GivenDataset(ImageDataset):
    """Items of a user's data, which are read when they are asked for.

    Args:
        items: the data.
        places: of the items that count.
        kept: these items, without their images.
        labels: a class index for each.
        classes: the classes' names.
        normalization: that of the model.
    """

    def __init__(
        self,
        items: Items,
        places: Sequence[int],
        kept: Sequence[Item],
        labels: Sequence[int],
        classes: Sequence[str],
        normalization: Normalization | None,
    ) -> None:
        self._items, self._places = items, list(places)
        counts = Counter(item.name for item in kept)
        self._names = [
            item.name if item.name is not None and counts[item.name] == 1 else f"image {place}"
            for place, item in zip(places, kept)
        ]
        seen = self._some_items()
        self._undo = applied_normalization(seen.values(), normalization)
        super().__init__(
            classes,
            list(labels),
            [item.mask is not None for item in kept],
            identity=("given", self._names, self._digest(seen)),
            has_avoid=[item.avoid is not None for item in kept],
        )

    def path(self, index: int) -> str:
        """Return the name of the image."""
        return self._names[index]

    def load(self, index: int) -> Sample:
        """Read an item."""
        name = self._names[index]
        item = read(self._items, self._places[index])
        image = self._pixels(item, name)
        mask, avoid = (as_mask(region, name, image.shape[-2:]) for region in (item.mask, item.avoid))
        return Sample(tv_tensors.Image(image), self.label(index), mask, index, None, name, avoid=avoid)

    def _pixels(self, item: Item, name: str) -> Tensor:
        return as_pixels(item.image, name, self._undo)

    def _some_items(self) -> dict[int, Item]:
        """Return some items, by index, which show how the images are given."""
        spread = np.unique(np.linspace(0, len(self._places) - 1, LOOKED_AT).astype(int)).tolist()
        found = {}
        for index in spread:
            with suppress(UnreadableFileError):
                found[index] = read(self._items, self._places[index])
        return found

    def _digest(self, seen: dict[int, Item]) -> str:
        """Return a digest of these images; warn where they change between two readings."""
        digest = hashlib.blake2b(digest_size=8)
        for number, (index, item) in enumerate(seen.items()):
            with suppress(UnreadableFileError):
                pixels = self._pixels(item, self._names[index])
                digest.update(pixels.numpy().tobytes())
                if number == 0 and not torch.equal(pixels, self._pixels(read(self._items, self._places[index]), "")):
                    warnings.warn(
                        "the data shows another image each time that an item is read, as random transforms do; give data "
                        "without them",
                        stacklevel=4,
                    )
        return digest.hexdigest()


def read(items: Items, place: int) -> Item:
    """Return an item of a user's data.

    Raises:
        UnreadableFileError: the data fails to give it.
    """
    try:
        return items[place]
    except SightlineError:
        raise
    except Exception as error:  # a user's data fails in its own way
        raise UnreadableFileError(f"cannot read item {place} of the data: {error or type(error).__name__}") from error


def find_file(path: Any) -> Path:
    """Return the file of that name, which may be missing."""
    try:
        return locate(Path(path), "data")
    except MissingFileError:
        return Path(path)


def as_mask(region: Any, name: str, size: Sequence[int]) -> tv_tensors.Mask | None:
    """Return a mask with 0 = background and 1 = object; that of sightline's own samples does not change.

    Args:
        region: a path, a PIL image, an array, or a mask of sightline's own; None = no mask is known.
        name: what errors call the image.
        size: height and width of the image.

    Raises:
        UnreadableFileError: the file of the mask cannot be read.
        UnclearFileError: the region does not say which pixels are the object.
        SightlineError: the mask has another size than the image.
    """
    if region is None:
        return None
    if is_path(region):
        mask = read_mask(find_file(region), mask_meaning())
    elif isinstance(region, tv_tensors.Mask):
        mask = region.to(torch.uint8)
    elif isinstance(region, Image.Image):
        mask = mask_of_image(region, f"the mask of {name}", mask_meaning())
    else:
        mask = mask_of_array(as_array(region), f"the mask of {name}", mask_meaning())
    if tuple(mask.shape[-2:]) != tuple(size):
        raise SightlineError(
            f"the mask of {name} is {tuple(mask.shape[-2:])} and the image {tuple(size)} (height, width); they must agree"
        )
    return tv_tensors.Mask(mask)
