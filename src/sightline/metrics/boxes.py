"""How well maps localise the object by boxes: box localisation, the pointing game with boxes, and energy in the box.

Boxes are (x0, y0, x1, y1) in pixels: the first pixel of an image is the box (0, 0, 1, 1). An image without a box of its
own takes the tight box of its mask; with neither, or with an empty mask, it has no value (NaN).
"""

from math import ceil
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_iou

from sightline._core.checks import check_choice, check_count, check_fraction, check_positive
from sightline._core.tensors import check_maps, has_contrast
from sightline.data.batch_checks import check_boxes
from sightline.metric_base.base import PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.localization import mask_regions, pointing_game
from sightline.regions.batch_regions import fill_boxes
from sightline.regions.boxes import tight_boxes

By = Literal["pixels", "value"]


def map_boxes(maps: Tensor, share: float = 0.2, by: By = "pixels") -> Tensor:
    """Return the tight box of the largest connected part of each map's highest values.

    Args:
        maps: (B, H, W), any finite values.
        share: how much is pointed out.
        by: "pixels" = that share of the pixels, those of the highest values (and all that equal the last of them); "value"
            = the pixels above that share of the maximum: Zhou et al., "Learning Deep Features for Discriminative
            Localization" (CVPR 2016), section 3.2. Pixels at the map's minimum are never pointed out.

    Returns:
        Boxes (B, 4) xyxy in pixels; zeros for a constant map, which points nothing out.
    """
    check_maps(maps)
    check_fraction("(0, 1)", share=share)
    check_choice(By, by=by)
    flat = maps.flatten(1)
    if by == "pixels":
        last = flat.topk(ceil(share * flat.shape[1]), dim=1).values[:, -1]
        region = maps >= last[:, None, None]
    else:
        region = maps > share * flat.amax(1)[:, None, None]
    region &= (maps > flat.amin(1)[:, None, None]) & has_contrast(maps)[:, None, None]
    parts = [_largest_part(one) for one in region.cpu().numpy()]
    return torch.tensor(parts, dtype=torch.float32, device=maps.device)


def box_localization(
    maps: Tensor,
    boxes: Tensor,
    has_box: Tensor | None = None,
    *,
    share: float = 0.2,
    by: By = "pixels",
    threshold: float = 0.5,
) -> Tensor:
    """Whether the map's box (see `map_boxes`) overlaps one of the object's boxes by an IoU of at least the threshold.

    The class is taken as known: whether the model is right does not count.

    Args:
        maps: (B, H, W), any finite values.
        boxes: (B, N, 4) xyxy in pixels.
        has_box: (B, N) bool, which boxes are real; None = all.
        share: as for `map_boxes`.
        by: as for `map_boxes`.
        threshold: least IoU of a hit.

    Returns:
        (B,) 1 or 0; 0 for a constant map, NaN without a box.
    """
    check_positive(threshold=threshold)
    found = map_boxes(maps, share, by)
    real = _real(maps, boxes, has_box)
    overlap = torch.stack([box_iou(one[None], some.to(one))[0] for one, some in zip(found, boxes)])
    hits = overlap.masked_fill(~real, 0).amax(1) >= threshold
    return torch.where(real.any(1), hits.float(), torch.nan)


def energy_in_box(maps: Tensor, boxes: Tensor, has_box: Tensor | None = None) -> Tensor:
    """Return the share of the map's energy inside the boxes: Wang et al., "Score-CAM" (CVPR workshops 2020), section 4.3.

    Args:
        maps: (B, H, W), no value below 0.
        boxes: (B, N, 4) xyxy in pixels; a pixel is in a box if its center is.
        has_box: (B, N) bool, which boxes are real; None = all.

    Returns:
        (B,) in [0, 1]; 0 for a map without energy, NaN without a box.
    """
    check_maps(maps, low=0)
    inside, known = _inside(maps, boxes, has_box)
    total = maps.sum((1, 2))
    shares = (maps * inside).sum((1, 2)) / torch.where(total > 0, total, 1)
    return torch.where(known, shares, torch.nan)


def pointing_game_in_box(maps: Tensor, boxes: Tensor, has_box: Tensor | None = None, tolerance: int = 0) -> Tensor:
    """Return whether the map's maximum is in one of the object's boxes: Zhang et al. 2016, with boxes as the thesis has it.

    The thesis is "Visualization of Deep Features with Grad-CAM and LOTS" (2023), section 3.3. Where several pixels share the
    maximum, the value is the share of them that hit, as in `pointing_game`.

    Args:
        maps: (B, H, W), any finite values.
        boxes: (B, N, 4) xyxy in pixels; a pixel is in a box if its center is.
        has_box: (B, N) bool, which boxes are real; None = all.
        tolerance: Greatest distance from the boxes, in pixels, that still is a hit.

    Returns:
        (B,) in [0, 1], NaN without a box.
    """
    inside, known = _inside(maps, boxes, has_box)
    return pointing_game(maps, inside.to(torch.uint8), known, tolerance=tolerance).masked_fill(~known, torch.nan)


class BoxMetric(PerImageMetric):
    """A metric that compares maps with boxes."""

    needs_boxes = True

    def update(
        self,
        maps: Tensor,
        boxes: Tensor | None = None,
        has_box: Tensor | None = None,
        masks: Tensor | None = None,
        has_mask: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> None:
        """Take a batch.

        Args:
            maps: (B, H, W).
            boxes: (B, N, 4) xyxy in pixels.
            has_box: (B, N) bool, which boxes are real; None = all.
            masks: as for `MapMetric.update`; their tight boxes serve images that have no box.
            has_mask: (B,) bool, which images have a mask; None = all.
            targets: (B,) the explained class, which picks the mask where each class has its own.
        """
        self.update_batch(
            Observation(maps=maps, boxes=boxes, has_box=has_box, masks=masks, has_mask=has_mask, targets=targets)
        )


@register("box_localization")
class BoxLocalization(BoxMetric):
    """Share of the images where the box around the map's highest values and the object's box have an IoU of 0.5 or more.

    In [0, 1]; higher is better. Also called MaxBoxAcc or GT-known localization: the class is taken as known.

    Args:
        share: how much of the map counts as pointed out, in (0, 1).
        by: "pixels" = this share of the pixels, "value" = the pixels above this share of the maximum.
        threshold: smallest IoU of a hit.

    References:
        Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), section 3.2, whose box is that of
            `share=0.2, by="value"`.

    Examples:
        >>> maps = torch.zeros(1, 8, 8)
        >>> maps[:, 2:5, 2:5] = 1
        >>> metric = sl.metrics.BoxLocalization(share=0.5, by="value")
        >>> metric.update(maps, boxes=torch.tensor([[[2.0, 2.0, 5.0, 6.0]]]))
        >>> metric.compute().item()
        1.0
    """

    def __init__(self, share: float = 0.2, by: By = "pixels", threshold: float = 0.5) -> None:
        super().__init__()
        check_fraction("(0, 1)", share=share)
        check_choice(By, by=by)
        check_positive(threshold=threshold)
        self.by: By = by
        self.share, self.threshold = share, threshold

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`box_localization` of each image."""
        boxes, real = observation.cached(object_boxes)
        return box_localization(
            observation.require("maps"), boxes, real, share=self.share, by=self.by, threshold=self.threshold
        )


@register("energy_in_box")
class EnergyInBox(BoxMetric):
    """Mean share of the map's energy inside the object's boxes, in [0, 1]; higher is better.

    References:
        Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks" (CVPR workshops 2020),
            section 4.3.

    Examples:
        >>> metric = sl.metrics.EnergyInBox()
        >>> metric.update(torch.ones(1, 8, 8), boxes=torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]))
        >>> metric.compute().item()
        0.25
    """

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`energy_in_box` of each image."""
        return energy_in_box(observation.require("maps"), *observation.cached(object_boxes))


@register("pointing_game_in_box")
class PointingGameInBox(BoxMetric):
    """Share of the images where the map's maximum is in a box of the object.

    Args:
        tolerance: Greatest distance from the boxes, in pixels, that still is a hit.

    References:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop" (ECCV 2016), section 4.1, for the pointing game.

    Examples:
        >>> maps = torch.zeros(1, 8, 8)
        >>> maps[0, 1, 1] = 1
        >>> metric = sl.metrics.PointingGameInBox()
        >>> metric.update(maps, boxes=torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]))
        >>> metric.compute().item()
        1.0
    """

    def __init__(self, tolerance: int = 0) -> None:
        super().__init__()
        check_count(0, tolerance=tolerance)
        self.tolerance = tolerance

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`pointing_game_in_box` of each image."""
        boxes, real = observation.cached(object_boxes)
        return pointing_game_in_box(observation.require("maps"), boxes, real, self.tolerance)


def object_boxes(observation: Observation) -> tuple[Tensor, Tensor]:
    """Return the boxes (B, N, 4) of each image, around its mask where it has none, and which are real (B, N)."""
    maps = observation.require("maps")
    boxes = maps.new_zeros(len(maps), 1, 4) if observation.boxes is None else observation.boxes.to(maps)
    real = (
        boxes.new_zeros(boxes.shape[:2], dtype=torch.bool)
        if observation.boxes is None
        else _real(maps, boxes, observation.has_box)
    )
    if observation.masks is None:
        return boxes, real
    inside, _, defined = mask_regions(maps, observation.masks, observation.has_mask, observation.targets)
    drawn, _ = tight_boxes(inside)
    drawn_real = (defined & ~real.any(1))[:, None]
    return torch.cat([boxes, drawn[:, None].to(boxes)], 1), torch.cat([real, drawn_real], 1)


def _inside(maps: Tensor, boxes: Tensor, has_box: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the pixels (B, H, W) in the real boxes, and the images (B,) that have one."""
    check_maps(maps)
    real = _real(maps, boxes, has_box)
    size = (maps.shape[-2], maps.shape[-1])
    return (fill_boxes(boxes.to(maps), size) & real[..., None, None]).any(1), real.any(1)


def _real(maps: Tensor, boxes: Tensor, has_box: Tensor | None) -> Tensor:
    check_boxes(boxes, has_box, (len(maps), *maps.shape[1:]))
    return boxes.new_ones(boxes.shape[:2], dtype=torch.bool) if has_box is None else has_box


def _largest_part(region: np.ndarray) -> tuple[int, int, int, int]:
    """Return the tight box of a region's largest 8-connected part, the first in row order among equals; zeros for none."""
    parts, count = ndimage.label(region, np.ones((3, 3)))
    if not count:
        return (0, 0, 0, 0)
    rows, columns = ndimage.find_objects(parts)[np.bincount(parts.flat)[1:].argmax()]
    return columns.start, rows.start, columns.stop, rows.stop
