"""RIA: the box of what the model attends to should be inside the object's box, and be small.

"Mitigating Bias: Enhancing Image Classification by Improving Model Explanations", sections 3.2 to 3.4, called RIA below.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from sightline._core.checks import check_choice, check_fraction, check_non_negative, check_positive
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.explainers import normalize_maps, resize_maps
from sightline.guides.balance import MapGuide
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Context
from sightline.regions.batch_regions import OBJECTS, check_source, fill_boxes, object_region
from sightline.regions.boxes import component_of_peak, tight_boxes

Target = Literal["predicted", "label"]
Unit = Literal["fraction", "pixels"]


@GUIDES.register("region_activation", needs_boxes=True, needs_layer=True)
class RegionActivation(MapGuide):
    """RIA loss: 1 - IoU-hat + lambda x diagonal of the box around the map's strongest region.

    The map is scaled to [0, 1]; of its pixels above the threshold, the connected ones that hold its maximum give the box
    B_gc. IoU-hat = |B_od and B_gc| / |B_gc| is the share of it that is in the object's box B_od, so a box of the
    object that is too large does no harm (equations 6 to 8). The value is exactly that. Thresholds and components have no
    gradient, and the paper does not say how it gets one: here it is that of a soft region, joined straight-through (see
    `ria_loss`).

    An image whose map has no pixel above the threshold has no box, and leaves the mean; `n/region_activation/no_region` counts
    these. With gradient accumulation they count as 0, because the mean is over all accumulated images.

    The paper trains from scratch with the cross-entropy alone at first: in a recipe, a first stage with `guide: null`.

    Args:
        weight: of the loss; the cross-entropy has weight 1, the paper's beta.
        penalty: lambda, the weight of the diagonal.
        threshold: T, the value of the map above which a pixel is attended to, in (0, 1).
        region: the object's box by the data's `"boxes"` (several: what is in any of them), or around its `"masks"`.
        target: the class that is explained: the `"predicted"` one as in the paper, or the `"label"`.
        unit: of the diagonal: as a `"fraction"` of the image's, or in `"pixels"` as the paper's text can be read.
        softness: of the soft region that gives the gradient, in units of the map.

    References:
        Ahmadi, Rajabi, Khalooei, Sabokrou, "Mitigating Bias: Enhancing Image Classification by Improving Model Explanations"
            (ACML 2023), Eqs. 6 to 8.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> boxes = torch.tensor([[[16.0, 16.0, 48.0, 48.0]], [[0.0, 0.0, 32.0, 32.0]]])
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), boxes=boxes)
        >>> objective = sl.Objective(model, sl.RegionActivation())
        >>> objective(batch)["loss"].backward()
    """

    def __init__(
        self,
        weight: float = 0.5,
        penalty: float = 0.1,
        threshold: float = 0.5,
        region: str = "boxes",
        target: Target = "predicted",
        unit: Unit = "fraction",
        softness: float = 0.1,
        explainer: str | Mapping[str, Any] = "gradcam",
    ) -> None:
        super().__init__(weight, False, explainer)
        check_choice(Target, target=target)
        check_choice(Unit, unit=unit)
        check_non_negative(penalty=penalty)
        check_positive(softness=softness)
        check_fraction("(0, 1)", threshold=threshold)
        self.penalty, self.threshold, self.softness = float(penalty), threshold, softness
        self.region, self.target, self.unit = check_source(region, OBJECTS), target, unit
        self.needs = self.region

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """Return which images (B,) have a box with an area."""
        return {"region_activation": object_region(batch, self.region).known}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """L_RIA (B,); an image whose map has no pixel above the threshold is left out and counted."""
        batch = context.batch
        size = (batch.images.shape[-2], batch.images.shape[-1])
        targets = batch.labels if self.target == "label" else context.logits.detach().argmax(1)
        maps = normalize_maps(resize_maps(context.raw_maps(self.explainer, targets)[0], size))
        inside = object_region(batch, self.region).inside
        if self.region == "masks":
            boxes, _ = tight_boxes(inside >= 0.5)
            inside = fill_boxes(boxes, size)
        unit = math.hypot(*size) if self.unit == "fraction" else 1.0
        loss, found = ria_loss(maps, inside, self.penalty / unit, self.threshold, self.softness)
        context.counts["region_activation/no_region"] = (~found).sum()
        context.left_out["region_activation"] = ~found
        return {"region_activation": loss}


def ria_loss(
    maps: Tensor, inside: Tensor, penalty: float, threshold: float = 0.5, softness: float = 0.1
) -> tuple[Tensor, Tensor]:
    """1 - IoU-hat + penalty x diagonal, exactly, with the gradient of its soft form (RIA, equation 8).

    In the soft form each pixel of the component counts by sigmoid((G - T) / softness). IoU-hat is the share of this weight
    that is in the object's box; the box is as wide as the sum over its columns, and as high as the sum over its rows, of
    the largest weight there. So the gradient lowers the map where the component sticks out of the object's box, the most
    where the map is close to the threshold and can be brought under it.

    Args:
        maps: (B, H, W) in [0, 1].
        inside: (B, H, W), which pixels are in the object's box.
        penalty: of a pixel of the diagonal.
        threshold: T.
        softness: of the sigmoid.

    Returns:
        The loss (B,), 0 without gradient where no pixel is above the threshold; and where (B,) one is.
    """
    maps = at_least_float32(maps)
    inside = inside.to(maps.dtype)
    component = component_of_peak(maps.detach(), threshold)
    boxes, found = tight_boxes(component)
    box = fill_boxes(boxes, (maps.shape[-2], maps.shape[-1]))
    sides = (boxes[:, 2:] - boxes[:, :2]).to(maps)
    share = (box * inside).sum((1, 2)) / box.sum((1, 2)).clamp_min(1)
    exact = 1 - share + penalty * sides.norm(dim=1)

    weights = torch.sigmoid((maps - threshold) / softness) * component
    total = weights.sum((1, 2))
    soft_share = (weights * inside).sum((1, 2)) / torch.where(found, total, 1.0)
    extents = torch.stack([weights.amax(1).sum(1), weights.amax(2).sum(1)], 1)
    soft = 1 - soft_share + penalty * torch.where(found[:, None], extents, 1.0).norm(dim=1)
    return torch.where(found, exact.detach() + soft - soft.detach(), 0.0), found
