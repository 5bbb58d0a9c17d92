"""Model guidance: the map's energy should be on the object, or the map should be the object's mask."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sightline._core.checks import check_non_negative
from sightline.data.batch import Batch
from sightline.guides.balance import MapGuide, scaled_to_one
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Context
from sightline.regions.batch_regions import Region, Source, check_source, object_region


class _Localization(MapGuide):
    """A guide that holds the label's map against the object, at the input's resolution."""

    name: str

    def __init__(
        self,
        weight: float = 1.0,
        region: str = "masks",
        explainer: str | Mapping[str, Any] = "gradcam",
        normalize: bool = False,
    ) -> None:
        super().__init__(weight, normalize, explainer)
        self.region: Source = check_source(region)
        self.needs = self.region

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """Return which images (B,) have a known object, or a known region to avoid."""
        return {self.name: object_region(batch, self.region).known}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the loss (B,) of each image's map."""
        region, maps = object_region(context.batch, self.region), self.maps(context)
        context.counts[f"{self.name}/zero_maps"] = (maps.detach().amax((1, 2)) <= 0).sum()
        return {self.name: self.balanced(self.name, self.loss(maps, region), region.known, context)}

    def loss(self, maps: Tensor, region: Region) -> Tensor:
        """Return the loss (B,) of maps (B, H, W)."""
        raise NotImplementedError


@GUIDES.register("energy", needs_masks=True, needs_layer=True)
class Energy(_Localization):
    """Energy loss: the share of the map that is outside the object.

    According to the paper it works with coarse annotations, such as few or dilated boxes, because inside the box it asks for
    nothing. One term penalizes and rewards: energy that leaves the background moves to the object.

    Args:
        region: the object by its `"masks"` or by `"boxes"`; or `"avoid"`: the share of the map in the region to avoid.

    References:
        Rao et al., "Studying How to Efficiently and Effectively Guide Models with Explanations" (ICCV 2023),
            section 3.4, Eq. 6: the Energy loss.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> losses = sl.Objective(model, sl.Energy(weight=0.5))(batch)
        >>> losses["loss"].backward()
        >>> 0 <= losses["energy"].item() <= 1
        True
    """

    name = "energy"

    def loss(self, maps: Tensor, region: Region) -> Tensor:
        """See `energy_loss`."""
        if self.region == "avoid":
            return 1 - energy_loss(maps, region.outside, region.free)
        return energy_loss(maps, region.inside, region.outside)


@GUIDES.register("l1", needs_masks=True, needs_layer=True)
class L1(_Localization):
    """L1 loss: the mean distance of the map, scaled to a maximum of 1, from the mask.

    Args:
        region: the object by its `"masks"` or by `"boxes"`; or `"avoid"`: the mean of the map over the region to avoid, where
            there is nothing to reward.
        reward: weight of the pixels inside, where the map should be 1, relative to those outside, where it should be 0; 1 is
            the paper's loss, 0 a penalty alone.

    References:
        Rao et al., "Studying How to Efficiently and Effectively Guide Models with Explanations" (ICCV 2023),
            section 3.4, Eq. 3: the L1 loss.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.L1(weight=0.5))
        >>> objective(batch)["loss"].backward()
    """

    name = "l1"

    def __init__(
        self,
        weight: float = 1.0,
        region: str = "masks",
        reward: float = 1.0,
        explainer: str | Mapping[str, Any] = "gradcam",
        normalize: bool = False,
    ) -> None:
        super().__init__(weight, region, explainer, normalize)
        check_non_negative(reward=reward)
        self.reward = reward

    def loss(self, maps: Tensor, region: Region) -> Tensor:
        """See `l1_loss`."""
        return l1_loss(maps, region.inside, region.outside, self.reward)


def energy_loss(maps: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """One minus the share of each map that is inside.

    Args:
        maps: (B, H, W), non-negative.
        inside: (B, H, W) in [0, 1].
        outside: (B, H, W) in [0, 1].

    Returns:
        (B,) in [0, 1]; 1, with zero gradient, for an all-zero map.
    """
    maps = scaled_to_one(maps)  # sums of tiny maps must not vanish
    within, without = (maps * inside).sum((1, 2)), (maps * outside).sum((1, 2))
    total = within + without
    return 1 - within / torch.where(total > 0, total, torch.ones_like(total))


def l1_loss(maps: Tensor, inside: Tensor, outside: Tensor, reward: float = 1.0) -> Tensor:
    """Return the mean over the pixels of the map outside the object, and of what the map lacks inside.

    Args:
        maps: (B, H, W), non-negative; each is divided by its largest value.
        inside: (B, H, W) in [0, 1].
        outside: (B, H, W) in [0, 1].
        reward: weight of what is inside.

    Returns:
        (B,), in [0, 1] for a reward of 1.
    """
    maps = scaled_to_one(maps)
    distances = (maps * outside + reward * (1 - maps) * inside).sum((1, 2))
    return distances / (inside + outside).sum((1, 2)).clamp_min(1)
