"""Images with the masks that people or programs gave them."""

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
        objects: by index, (h, w) bool or uint8 with 1 = object and 255 = unknown, at any size of the same aspect. Other images
            have no mask.
        avoid: by index, (h, w) bool, what must not matter.
    """

    def __init__(
        self, dataset: ImageDataset, objects: Mapping[int, np.ndarray], avoid: Mapping[int, np.ndarray] | None = None
    ) -> None:
        self.objects, self.avoided = dict(objects), dict(avoid or {})
        has_mask = torch.tensor([index in self.objects for index in range(len(dataset))])
        digests = [(kind, index, hash(mask.tobytes())) for kind, masks in (("object", self.objects), ("avoid", self.avoided))
                   for index, mask in sorted(masks.items())]  # fmt: skip
        super().__init__(dataset, tuple(digests), has_mask)
        self.has_avoid = torch.tensor([index in self.avoided for index in range(len(dataset))])

    def load(self, index: int) -> Sample:
        """The image with its mask."""
        sample = self.dataset[index]
        size = sample.image.shape[-2:]
        masks = [
            None
            if index not in given
            else tv_tensors.Mask(resize_mask(torch.from_numpy(given[index].astype(np.uint8)), size))
            for given in (self.objects, self.avoided)
        ]
        return replace(sample, mask=masks[0], avoid=masks[1])
