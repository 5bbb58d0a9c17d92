"""Guided attention inference: without what the map shows, the class must not be recognized."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sightline._core.checks import check_fraction, check_non_negative, check_positive
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.guides.balance import MapGuide, scaled_to_one
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Context, all_images
from sightline.regions.batch_regions import object_region


@GUIDES.register("gain", needs_layer=True, pixel_space=True)
class GAIN(MapGuide):
    """GAIN: attention mining, which needs no mask, and the masks' supervision of its extension, where there are any.

    The label's map A, scaled to a maximum of 1, becomes the soft mask T(A) = sigmoid(slope (A - threshold)). The mined term
    is the label's probability for the image with T(A) erased, x - T(A) x. So the map has to cover everything that reveals the
    class. With `supervision`, a second term pulls A onto the object: their mean squared distance (GAIN_ext). The
    erased images take a separate forward pass, which batch norm's running statistics do not see. Erased pixels tend to 0:
    black where an input spec normalizes inside, the mean color where the images are normalized already.

    Args:
        supervision: weight of the squared distance of map and mask within this guide; 0 leaves the term out.
        slope: how sharply T falls from what is erased to what stays.
        threshold: the value of the map at which half is erased, in (0, 1).

    References:
        Li et al., "Tell Me Where to Look: Guided Attention Inference Network" (CVPR 2018), for the attention
            mining loss and the extra supervision of GAIN_ext.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.GAIN())
        >>> objective(batch)["loss"].backward()
    """

    needs_pixels = True

    def __init__(
        self,
        weight: float = 1.0,
        supervision: float = 0.0,
        slope: float = 10.0,
        threshold: float = 0.5,
        explainer: str | Mapping[str, Any] = "gradcam",
        normalize: bool = False,
    ) -> None:
        super().__init__(weight, normalize, explainer)
        check_non_negative(supervision=supervision)
        check_positive(slope=slope)
        check_fraction("(0, 1)", threshold=threshold)
        self.needs = "masks" if supervision else None
        self.supervision, self.slope, self.threshold = supervision, slope, threshold

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """Mining averages over all images, supervision over those with an object in their mask."""
        everyone = {"gain": all_images(batch)}
        return everyone | ({"gain_mask": object_region(batch, "masks").known} if self.supervision else {})

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the erased image's probability of the label (B,), and the squared distance of map and mask (B,)."""
        batch, annotated = context.batch, self.sample_mask(context.batch)
        maps = scaled_to_one(self.maps(context))
        erased = batch.images * (1 - soft_mask(maps, self.slope, self.threshold))[:, None].to(batch.images.dtype)
        probabilities = at_least_float32(context.classify(erased)).softmax(1)
        values = {"gain": probabilities.gather(1, batch.labels[:, None])[:, 0]}
        if self.supervision:
            region = object_region(batch, "masks")
            counts = region.inside + region.outside
            distances = ((maps - region.inside).square() * counts).sum((1, 2)) / counts.sum((1, 2)).clamp_min(1)
            values["gain_mask"] = self.supervision * distances
        return {name: self.balanced(name, each, annotated[name], context) for name, each in values.items()}


def soft_mask(maps: Tensor, slope: float, threshold: float) -> Tensor:
    """How much of each pixel is erased (B, H, W), for maps in [0, 1]: sigmoid(slope (A - threshold))."""
    return torch.sigmoid(slope * (maps - threshold))
