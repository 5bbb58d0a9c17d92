"""Images with the masks that people or programs gave them."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torchvision import tv_tensors

from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.data.transforms import resize_mask


class MarkedImages(Derived):
    """A dataset whose images have other objects and regions to avoid.

    Args:
        dataset: the images.
        objects: by index, (h, w) bool or uint8 with 1 = object and 255 = unknown, stretched over the whole image, at any
            size. Other images have no mask.
        avoid: by index, (h, w) bool, what must not matter.
    """

    def __init__(
        self, dataset: ImageDataset, objects: Mapping[int, np.ndarray], avoid: Mapping[int, np.ndarray] | None = None
    ) -> None:
        self.objects, self.avoided = dict(objects), dict(avoid or {})
        has_mask = torch.tensor([index in self.objects for index in range(len(dataset))])
        known = sorted({*self.objects, *self.avoided})
        self._digests = {index: _digest(self.objects.get(index), self.avoided.get(index)) for index in known}
        super().__init__(dataset, ("marked", tuple(self._digests.items())), has_mask)
        self.has_avoid = torch.tensor([index in self.avoided for index in range(len(dataset))])

    def is_known(self, index: int) -> bool:
        """Whether an image has an object or a region to avoid."""
        return index in self._digests

    def digest(self, index: int) -> str:
        """Return what tells the regions of an image from others; empty where nothing is known."""
        return self._digests.get(index, "")

    def load(self, index: int) -> Sample:
        """Load the image with its mask."""
        sample = self.dataset[index]
        size = sample.image.shape[-2:]
        masks = [
            None
            if index not in given
            else tv_tensors.Mask(resize_mask(torch.from_numpy(given[index].astype(np.uint8)), size))
            for given in (self.objects, self.avoided)
        ]
        return replace(sample, mask=masks[0], avoid=masks[1])


def _digest(*masks: np.ndarray | None) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for mask in masks:
        digest.update(b"none" if mask is None else f"{mask.shape}".encode() + np.ascontiguousarray(mask).tobytes())
    return digest.hexdigest()
