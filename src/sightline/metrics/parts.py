"""Part interpretability: whether single filters of a layer respond to parts of objects."""

import torch
from torch import Tensor, nn

from sightline._core.checks import check_fraction
from sightline._core.tensors import at_least_float32, check_finite, check_shape
from sightline.data.batch import non_empty
from sightline.explainers.base import resize_maps
from sightline.metric_base.base import PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice
from sightline.network.modes import evaluating
from sightline.network.tap import Tap


def part_iou(activations: Tensor, parts: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the IoU of every filter's region with every part of an image.

    A filter's region is where its map, resized to the image, reaches a share of its highest value there.

    Args:
        activations: (C, h, w) of one image.
        parts: (P, H, W), where a value above 0 is the part.
        threshold: the share, above 0 and at most 1.

    Returns:
        (C, P) in [0, 1]; 0 for a filter that nowhere is above 0, and for a part without a pixel.

    Raises:
        SightlineError: a shape or the threshold is not as above.
    """
    check_shape(activations, "activations", ("C", "h", "w"))
    check_shape(parts, "parts", ("P", "H", "W"))
    check_fraction("(0, 1]", threshold=threshold)
    maps = resize_maps(at_least_float32(activations), (parts.shape[1], parts.shape[2])).flatten(1)
    highest = maps.amax(1, keepdim=True)
    region = ((maps >= threshold * highest) & (highest > 0)).float()
    inside = (parts.flatten(1) > 0).to(region)
    common = region @ inside.T
    union = region.sum(1)[:, None] + inside.sum(1) - common
    return torch.where(union > 0, common / union.clamp_min(1), 0)


@register("part_interpretability")
class PartInterpretability(PerImageMetric):
    """Mean over a layer's filters of the best IoU with one of the image's parts, averaged over the images; in [0, 1].

    "Improving Network Interpretability via Explanation Consistency Evaluation", Figure 9b, gives it on animals without its
    formula. This is our reading. Filters that respond to one part in one image and to another in the next count as much as
    those that are true to theirs. An image none of whose parts is seen has no value.

    Args:
        model: a classifier; asked in eval mode, and not changed.
        layer: the layer whose filters are looked at; None chooses by the model's family.
        threshold: see `part_iou`.
        input_spec: normalizes images in [0, 1]. None = images are what the model takes.
        internal_batch_size: images in one call to the model; None takes a batch as it comes.

    References:
        Wu et al., "Improving Network Interpretability via Explanation Consistency Evaluation" (IEEE Transactions on Multimedia
            2024), Figure 9b.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> parts = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
        >>> parts[:, 0, :4], parts[:, 1, 4:] = 1, 1
        >>> metric = sl.metrics.PartInterpretability(model, layer="0")
        >>> metric.update(torch.rand(1, 3, 8, 8), parts=parts)
        >>> 0 < metric.compute().item() < 1
        True
    """

    needs_maps = False
    needs_parts = True
    needs_layer = True
    needs_model = True

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: LayerChoice | None = None,
        threshold: float = 0.5,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        check_fraction("(0, 1]", threshold=threshold)
        self.threshold, self.input_spec, self.internal_batch_size = threshold, input_spec, internal_batch_size
        self._tap = [Tap(model, layer)]  # no module, so the metric's state dict and moves spare the model

    def update(self, images: Tensor, parts: Tensor) -> None:
        """Take a batch.

        Args:
            images: (B, C, H, W).
            parts: (B, P, H, W), above 0 where the part is; empty masks count as no part.
        """
        self.update_batch(Observation(images=images, parts=parts))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the value (B,) of each image, NaN where no part is visible."""
        images, parts, tap = observation.require("images"), observation.require("parts"), self._tap[0]
        values = []
        with evaluating(tap.model), torch.no_grad():
            for some, drawn in zip(
                images.split(self.internal_batch_size or len(images)),
                parts.split(self.internal_batch_size or len(images)),
            ):
                inputs = to_inputs(some, self.input_spec)
                (activations,) = tap(inputs).activations
                check_finite(activations, f"the activations of {tap.layers[0].name!r}", "is the model finite?")
                for maps, masks in zip(activations, drawn):
                    shown = masks[non_empty(masks)]
                    value = part_iou(maps, shown, self.threshold).amax(1).mean() if len(shown) else None
                    values.append(images.new_tensor(torch.nan) if value is None else value.to(images.dtype))
        return torch.stack(values)
