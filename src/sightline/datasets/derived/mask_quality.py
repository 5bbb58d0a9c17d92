"""Fewer masks, and worse ones: to find out how many a guide needs, and how well they have to be drawn."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torchvision import tv_tensors

from sightline._core.checks import check_choice, check_count, check_fraction, check_positive
from sightline._core.seeding import generator
from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.errors import SightlineError

Quality = Literal["coarse", "dilated", "box", "wrong"]
QUALITIES: tuple[Quality, ...] = ("coarse", "dilated", "box", "wrong")


class DegradedMasks(Derived):
    """A data set that keeps some of its masks, and those in a poorer quality.

    Which images keep their masks depends on the seed alone, with an equal share of every class; a larger fraction keeps all
    that a smaller one keeps. Where the quality changes a mask, pixels to be ignored count as background.

    Args:
        dataset: at least one image has a mask.
        fraction: of the masks that are kept, in [0, 1].
        quality: "coarse" = a grid of cells, each of them object where at least half of it is, and at least one of them;
            "dilated" = grown on all sides; "box" = the box around the object; "wrong" = in some images, another image's mask;
            None = unchanged.
        cells: of "coarse", along the longer side.
        radius: of "dilated", as a share of the shorter side.
        share: of "wrong": how many of the masks are, in [0, 1]; a larger share contains what a smaller one does.
        seed: of the choice of images, and of the wrong masks.

    Raises:
        SightlineError: no image has a mask, a value is out of its range, or masks are to be wrong where there is only one or
            where images can have several labels.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        fraction: float = 1.0,
        quality: Quality | None = None,
        cells: int = 8,
        radius: float = 0.05,
        share: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_fraction(fraction=fraction, share=share)
        check_count(cells=cells)
        check_positive(radius=radius)
        if quality is not None:
            check_choice(Quality, quality=quality)
        if not dataset.has_mask.any():
            raise SightlineError(
                "no image has a mask, so there are none to keep or to change; use a dataset with masks"
            )
        self.seed = seed
        self.masked = dataset.has_mask.nonzero()[:, 0]
        strata = torch.zeros(len(dataset), dtype=torch.int64) if dataset.multi_label else dataset.labels
        has_mask = torch.zeros_like(dataset.has_mask)
        has_mask[nested_share(self.masked, strata, fraction, seed, "mask_fraction")] = True
        self.wrong: set[int] = set()
        if quality == "wrong":
            dataset.check_single_label("quality 'wrong'")
            if len(self.masked) < 2:
                raise SightlineError(
                    "quality is 'wrong'; that takes the mask of another image, and only one has a mask"
                )
            self.wrong = set(nested_share(self.masked, strata, share, seed, "wrong_masks").tolist())
        changes: dict[str, Callable[[Tensor], Tensor]] = {
            "coarse": partial(coarse, cells=cells), "dilated": partial(dilated, radius=radius), "box": boxed
        }  # fmt: skip
        self.change = changes.get(quality or "")
        super().__init__(dataset, (quality, cells, radius, share, seed), has_mask)

    def load(self, index: int) -> Sample:
        """Load the image with its changed mask, or without a mask."""
        sample = self.dataset[index]
        if sample.mask is None or not self.has_mask[index]:
            return replace(sample, mask=None)
        mask = self._another(index, sample.mask.shape[-2:]) if index in self.wrong else sample.mask
        if self.change is not None:
            planes = (mask == 1).reshape(-1, *mask.shape[-2:])
            mask = torch.stack([self.change(plane) if plane.any() else plane for plane in planes])
            mask = mask.to(torch.uint8).reshape(sample.mask.shape)
        return replace(sample, mask=tv_tensors.Mask(mask))

    def _another(self, index: int, size: torch.Size) -> Tensor:
        """Return the mask of another image, at this image's size (height, width)."""
        others = self.masked[self.masked != index]
        other = others[torch.randint(len(others), (), generator=generator(self.seed, index, "wrong mask"))]
        mask = self.dataset[int(other)].mask
        assert mask is not None  # it is among the masked
        return F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]


def coarse(inside: Tensor, cells: int) -> Tensor:
    """Return an object (H, W) bool as a grid of cells, this many along its longer side; a cell is object if half of it is.

    Of an object that fills half of no cell, the fullest cells remain.
    """
    height, width = inside.shape
    side = max(height, width) / cells
    grid = (max(1, round(height / side)), max(1, round(width / side)))
    share = F.adaptive_avg_pool2d(inside.float()[None], grid)[0]
    filled = (share >= share.max().clamp_max(0.5)) & (share > 0)
    return F.interpolate(filled[None, None].float(), (height, width), mode="nearest-exact")[0, 0].bool()


def dilated(inside: Tensor, radius: float) -> Tensor:
    """Return an object (H, W) bool with all pixels no farther from it than `radius` times the shorter side."""
    return torch.from_numpy(distance_transform_edt(~inside.numpy())) <= radius * min(inside.shape)


def boxed(inside: Tensor) -> Tensor:
    """Return the box (H, W) bool around a non-empty object (H, W) bool."""
    down, across = (inside.any(d).int() for d in (1, 0))
    spans = [line.cummax(0).values & line.flip(0).cummax(0).values.flip(0) for line in (down, across)]
    return (spans[0][:, None] & spans[1]).bool()


def nested_share(places: Tensor, strata: Tensor, share: float, seed: int, purpose: str) -> Tensor:
    """Return a share of positions (n,), drawn equally from every stratum; a larger share contains a smaller one."""
    draw = generator(seed, purpose)
    position = torch.empty(len(places), dtype=torch.float64)
    for stratum in strata[places].unique():
        members = (strata[places] == stratum).nonzero()[:, 0]
        ranks = torch.randperm(len(members), generator=draw)
        position[members] = (ranks + torch.rand(len(members), generator=draw, dtype=torch.float64)) / len(members)
    return places[position.argsort()[: round(share * len(places))]]
