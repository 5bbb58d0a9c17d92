"""CorLoc: in how many images a found box is the object's."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from sightline._core.checks import check_fraction
from sightline._core.tensors import check_finite, check_maps, check_shape
from sightline.data.batch_checks import check_boxes
from sightline.metric_base.base import PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.boxes import object_boxes
from sightline.regions.boxes import peak_boxes


def corloc(found: Tensor, boxes: Tensor, has_box: Tensor | None = None, iou: float = 0.5) -> Tensor:
    """Whether a found box overlaps one of an image's true boxes by an IoU of at least 0.5, the PASCAL criterion.

    Deselaers, Alexe, Ferrari, "Localizing Objects while Learning Their Appearance" (ECCV 2010); LOST's measure.

    Args:
        found: (B, 4) xyxy in pixels, one per image; a box without area, such as zeros, says that none was found.
        boxes: (B, N, 4) xyxy in pixels.
        has_box: (B, N) bool, which boxes are real; None = all.
        iou: least IoU of a hit, in (0, 1].

    Returns:
        (B,) 1 or 0; NaN for an image without a true box.

    Raises:
        SightlineError: tensors of other shapes, or an IoU out of its range.
    """
    check_shape(found, "found", (len(found), 4), meaning="xyxy in pixels")
    check_boxes(boxes, has_box, (len(found), None, None))
    check_finite(found, "found")
    check_fraction("(0, 1]", iou=iou)
    real = boxes.new_ones(boxes.shape[:2], dtype=torch.bool) if has_box is None else has_box
    overlap = torch.stack([box_iou(one[None], some.to(one))[0] for one, some in zip(found, boxes)])
    hits = ((overlap >= iou) & real).any(1)  # no area in either: NaN, which is no hit
    return torch.where(real.any(1), hits.float(), torch.nan)


@register("corloc")
class CorLoc(PerImageMetric):
    """Share of the images where a found box and an object's box have an IoU of 0.5 or more, in [0, 1]; higher is better.

    Given boxes, it judges them. Given maps, it judges the tight box of what is above the threshold and is connected with the
    map's maximum.

    Args:
        threshold: value above which a pixel of a map counts as pointed out.
        iou: smallest IoU of a hit.

    References:
        Deselaers, Alexe, Ferrari, "Localizing Objects while Learning Their Appearance" (ECCV 2010), the measure of its
            experiments.

    Examples:
        >>> metric = sl.metrics.CorLoc()
        >>> metric.update(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), boxes=torch.tensor([[[0.0, 0.0, 4.0, 6.0]]]))
        >>> metric.compute().item()  # IoU = 16 / 24
        1.0
    """

    needs_boxes = True

    def __init__(self, threshold: float = 0.5, iou: float = 0.5) -> None:
        super().__init__()
        check_fraction(threshold=threshold)
        check_fraction("(0, 1]", iou=iou)
        self.threshold, self.iou = threshold, iou

    def update(self, found: Tensor, boxes: Tensor, has_box: Tensor | None = None) -> None:
        """Take a batch of found boxes (B, 4), with the arguments of `corloc`."""
        self.values.append(corloc(found, boxes, has_box, self.iou))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`corloc` of each image's map."""
        maps = observation.require("maps")
        check_maps(maps)
        found, _ = peak_boxes(maps, self.threshold)
        boxes, real = observation.cached(object_boxes)
        return corloc(found.to(boxes), boxes, real, self.iou)
