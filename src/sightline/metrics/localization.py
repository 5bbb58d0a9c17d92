"""How well maps cover the object: IoU, pointing game and energy in the mask.

Pixels marked 255 in a uint8 mask belong neither to the object nor to the background: nothing there counts. An image
without a mask, and one whose mask has no object in it, has no value (NaN).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_count, check_fraction
from sightline._core.tensors import check_maps, check_shape
from sightline.data.batch import class_masks, non_empty
from sightline.data.batch_checks import check_indices, check_masks, check_masks_of_classes
from sightline.metric_base.base import MapMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register


def foreground_iou(
    maps: Tensor,
    masks: Tensor,
    has_mask: Tensor | None = None,
    targets: Tensor | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Intersection over union of the map's region, {map >= threshold}, and the object.

    Args:
        maps: (B, H, W) in [0, 1].
        masks: (B, H, W) or (B, K, H, W): uint8 with 0, 1 and 255 = ignore, or float, where >= 0.5 is the object.
        has_mask: (B,) bool, which images have one; None = all.
        targets: (B,) the explained class, which picks the mask where each class has its own.
        threshold: least value of a pixel that the map points out.

    Returns:
        (B,) in [0, 1]; 0 for a map that is zero everywhere, NaN without an object.

    Raises:
        SightlineError: maps outside [0, 1], NaN, or masks of another size.
    """
    check_maps(maps, low=0, high=1)
    check_fraction(threshold=threshold)
    inside, counts, defined = mask_regions(maps, masks, has_mask, targets)
    region = (maps >= threshold) & counts
    intersection = (region & inside).flatten(1).sum(1)
    union = (region | inside).flatten(1).sum(1)
    return torch.where(defined, intersection / union, torch.nan)


def pointing_game(
    maps: Tensor,
    masks: Tensor,
    has_mask: Tensor | None = None,
    targets: Tensor | None = None,
    tolerance: int = 0,
) -> Tensor:
    """Whether the map's maximum is on the object, or within some pixels of it (Zhang et al. 2016).

    Where several pixels share the maximum, the share of them that hit: the expected result of picking one at random. A
    constant map thereby scores the object's share of the image, which is chance.

    Args:
        maps: (B, H, W), any finite values.
        masks: as for `foreground_iou`.
        has_mask: as for `foreground_iou`.
        targets: as for `foreground_iou`.
        tolerance: greatest distance from the object, in pixels, that still is a hit; 15 in the paper.

    Returns:
        (B,) in [0, 1], NaN without an object.

    Raises:
        SightlineError: maps with NaN, masks of another size, or a negative tolerance.
    """
    check_maps(maps)
    check_count(0, tolerance=tolerance)
    inside, counts, defined = mask_regions(maps, masks, has_mask, targets)
    maps = maps.masked_fill(~counts, -torch.inf)
    maxima = (maps == maps.amax((1, 2), keepdim=True)) & counts
    hits = maxima & _widen(inside, tolerance)
    return torch.where(defined, hits.flatten(1).sum(1) / maxima.flatten(1).sum(1), torch.nan)


def energy_in_mask(
    maps: Tensor, masks: Tensor, has_mask: Tensor | None = None, targets: Tensor | None = None
) -> Tensor:
    """Return the share of the map's energy on the object: the energy-based pointing game (Wang et al. 2020).

    Args:
        maps: (B, H, W), no value below 0.
        masks: as for `foreground_iou`; a float mask weights the energy.
        has_mask: as for `foreground_iou`.
        targets: as for `foreground_iou`.

    Returns:
        (B,) in [0, 1]; 0 for a map without energy, NaN without an object.

    Raises:
        SightlineError: maps below 0, NaN, or masks of another size.
    """
    check_maps(maps, low=0)
    inside, counts, defined = mask_regions(maps, masks, has_mask, targets)
    chosen = class_masks(masks, targets)
    weight = chosen.to(maps.dtype) if chosen.is_floating_point() else inside.to(maps.dtype)
    total = (maps * counts).sum((1, 2))
    share = (maps * weight).sum((1, 2)) / torch.where(total > 0, total, 1)
    return torch.where(defined, share, torch.nan)


@register("miou")
class MIoU(MapMetric):
    """Mean intersection over union (IoU) of the object and the map's region, in [0, 1]; higher is better.

    Args:
        threshold: value from which on a pixel belongs to the map's region, in [0, 1].

    References:
        Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge" (IJCV 2010), for the IoU of regions.

    Examples:
        >>> metric = sl.metrics.MIoU(threshold=0.5)
        >>> metric.update(torch.tensor([[[0.9, 0.6], [0.1, 0.0]]]), torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8))
        >>> metric.compute().item()
        0.5
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        check_fraction(threshold=threshold)
        self.threshold = threshold

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`foreground_iou` of each image."""
        return foreground_iou(*_maps_and_masks(observation), self.threshold)


@register("pointing_game")
class PointingGame(MapMetric):
    """Pointing game: share of the images where the map's maximum is on the object, in [0, 1]; higher is better.

    Args:
        tolerance: largest distance from the object, in pixels, that is still a hit; 15 in the paper.

    References:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop" (ECCV 2016), section 4.1.

    Examples:
        >>> metric = sl.metrics.PointingGame()
        >>> metric.update(torch.tensor([[[0.9, 0.6], [0.1, 0.0]]]), torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8))
        >>> metric.compute().item()
        1.0
    """

    def __init__(self, tolerance: int = 0) -> None:
        super().__init__()
        check_count(0, tolerance=tolerance)
        self.tolerance = tolerance

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`pointing_game` of each image."""
        return pointing_game(*_maps_and_masks(observation), self.tolerance)


@register("energy_in_mask")
class EnergyInMask(MapMetric):
    """Mean share of the map's energy on the object, in [0, 1]; higher is better.

    References:
        Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks" (CVPR workshops 2020),
            section 4.3: the energy-based pointing game.

    Examples:
        >>> metric = sl.metrics.EnergyInMask()
        >>> metric.update(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8))
        >>> metric.compute().item()
        0.25
    """

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`energy_in_mask` of each image."""
        return energy_in_mask(*_maps_and_masks(observation))


def _maps_and_masks(observation: Observation) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    return observation.require("maps"), observation.require("masks"), observation.has_mask, observation.targets


def mask_regions(
    maps: Tensor, masks: Tensor, has_mask: Tensor | None, targets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the object (B, H, W), the pixels that count (B, H, W) and the images with an object (B,), all bool."""
    check_masks(masks, (len(maps), *maps.shape[1:]))
    if targets is not None:
        check_indices(targets, "targets", len(maps), 0)
        check_masks_of_classes(masks, targets)
    if has_mask is not None:
        check_shape(has_mask, "has_mask", (len(maps),), dtype=torch.bool)
    chosen = class_masks(masks, targets)
    if chosen.is_floating_point():
        inside, counts = chosen >= 0.5, torch.ones_like(chosen, dtype=torch.bool)
    else:
        inside, counts = chosen == 1, chosen != 255
    defined = non_empty(inside)
    return inside, counts, defined if has_mask is None else defined & has_mask


def _widen(inside: Tensor, radius: int) -> Tensor:
    """Return the pixels (B, H, W) within a Euclidean distance of the region."""
    if radius == 0:
        return inside
    offset = torch.arange(-radius, radius + 1, device=inside.device)
    disc = (offset[:, None] ** 2 + offset**2 <= radius**2).float()
    return F.conv2d(inside[:, None].float(), disc[None, None], padding=radius)[:, 0] > 0.5
