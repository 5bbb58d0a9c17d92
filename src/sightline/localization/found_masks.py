"""Masks by GrabCut instead of drawn ones, as a data set that finds each mask when it is first loaded."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tf

from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.data.transforms import resize_mask
from sightline.localization.prompts import Prompt, grabcut_mask, segment

SIDE = 128  # px of the longest side of images that GrabCut sees: it takes a fraction of a second for each


class FoundMasks(Derived):
    """A data set whose masks are found by GrabCut. Drawn masks are not read.

    Every image has one mask (H, W) with 1 = object and 0 = background. A mask is found once and then kept.

    Args:
        dataset: images with one label each.
        prompter: tells points of the objects in images (see `sightline.localization.prompts.Prompter`). Where it tells none,
            the object is somewhere around the center.
        facts: what the prompts are of; enters the fingerprint by its `repr`.

    Raises:
        SightlineError: an image can have several labels.
    """

    def __init__(
        self, dataset: ImageDataset, prompter: Callable[[Sequence[Sample]], list[list[Prompt]]], facts: object
    ) -> None:
        dataset.check_single_label("masks that are found")
        super().__init__(dataset, ("found masks", facts), torch.ones(len(dataset), dtype=torch.bool))
        self.prompter = prompter
        self._found: dict[int, Tensor] = {}

    def load(self, index: int) -> Sample:
        """Load the image with its mask."""
        sample = self.dataset[index]
        if index not in self._found:
            small = at_most(sample, SIDE)
            self._found[index] = cut_out(small, self.prompter([small])[0])
        mask = resize_mask(self._found[index], tuple(sample.image.shape[-2:]))
        return replace(sample, mask=tv_tensors.Mask(mask))


class CutBoxes(Derived):
    """A data set whose masks are what GrabCut finds in the boxes around the drawn masks, and nothing else of them.

    Args:
        dataset: at least one image has a mask.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        super().__init__(dataset, ("cut boxes",))
        self._found: dict[int, Tensor] = {}

    def load(self, index: int) -> Sample:
        """Load the image with its mask (H, W) or masks (K, H, W), 1 = object and 0 = background."""
        sample = self.dataset[index]
        if sample.mask is None or not self.has_mask[index]:
            return replace(sample, mask=None)
        if index not in self._found:
            drawn = sample.mask.as_subclass(Tensor)
            small = at_most(sample, SIDE)
            planes = [self._cut(small, plane == 1) for plane in drawn.reshape(-1, *drawn.shape[-2:])]
            self._found[index] = torch.stack(planes).reshape(*drawn.shape[:-2], *planes[0].shape)
        return replace(sample, mask=tv_tensors.Mask(resize_mask(self._found[index], tuple(sample.mask.shape[-2:]))))

    @staticmethod
    def _cut(small: Sample, inside: Tensor) -> Tensor:
        rows, columns = (inside.any(dimension).nonzero()[:, 0] for dimension in (1, 0))
        height, width = small.image.shape[-2:]
        if not len(rows):
            return torch.zeros(height, width, dtype=torch.uint8)
        across, down = width / inside.shape[1], height / inside.shape[0]
        edges = (columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down)
        return cut_out(small, [Prompt(torch.zeros(0, 2), torch.stack(edges).double())])


def cut_out(sample: Sample, prompts: Sequence[Prompt]) -> Tensor:
    """Return GrabCut's mask (H, W) uint8, 1 = object; without prompts, the object is around the center."""
    return segment(sample, prompts or [Prompt(torch.zeros(0, 2))], grabcut_mask).to(torch.uint8)


def at_most(sample: Sample, side: int) -> Sample:
    """Return the image alone, with a longest side of at most `side` pixels."""
    height, width = sample.image.shape[-2:]
    scale = min(1.0, side / max(height, width))
    image = sample.image
    if scale < 1:
        image = tv_tensors.Image(tf.resize(image, [max(1, round(height * scale)), max(1, round(width * scale))]))
    return replace(sample, image=image, mask=None, boxes=None, avoid=None, parts=None)
