"""Part interpretability: whether single filters of a layer respond to parts of objects."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sightline.data.transforms import eval_transform
from sightline.errors import SightlineError
from sightline.explainers.base import at_least_float32, resize_maps
from sightline.input_spec import InputSpec
from sightline.layers import LayerChoice
from sightline.tap import Tap, evaluating

if TYPE_CHECKING:
    from sightline.data.pascal_part import PascalPart


def part_iou(activations: Tensor, parts: Tensor, threshold: float = 0.5) -> Tensor:
    """The IoU of every filter's region with every part of an image.

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
    if activations.ndim != 3 or parts.ndim != 3:
        raise SightlineError(
            f"activations have shape {tuple(activations.shape)} and parts {tuple(parts.shape)}; expected (C, h, w) and "
            "(P, H, W)"
        )
    if not 0 < threshold <= 1:
        raise SightlineError(f"threshold is {threshold}; expected a share above 0 and at most 1")
    maps = resize_maps(at_least_float32(activations), (parts.shape[1], parts.shape[2])).flatten(1)
    highest = maps.amax(1, keepdim=True)
    region = ((maps >= threshold * highest) & (highest > 0)).float()
    inside = (parts.flatten(1) > 0).to(region)
    common = region @ inside.T
    union = region.sum(1)[:, None] + inside.sum(1) - common
    return torch.where(union > 0, common / union.clamp_min(1), 0)


def measure_parts(
    model: nn.Module,
    images: "PascalPart",
    *,
    size: int,
    layer: LayerChoice | None = None,
    input_spec: InputSpec | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Part interpretability of a model on each image: the mean over a layer's filters of the best IoU with one of its parts.

    "Improving Network Interpretability via Explanation Consistency Evaluation", Figure 9b, gives it on animals without its
    formula. This is our reading; its mean over images is the model's. Filters that respond to one part in one image and to
    another in the next count as much as those that are true to theirs.

    Args:
        model: a classifier; used in eval mode, on the device that it is on.
        images: with masks of their parts.
        size: side of the square that is seen of each image, in pixels, as in evaluation.
        layer: the layer whose filters are looked at; None chooses by the model's family.
        input_spec: normalises the images.
        threshold: see `part_iou`.

    Returns:
        (N,) in [0, 1]; NaN for an image none of whose parts is seen.
    """
    tap, see = Tap(model, layer), eval_transform(size)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    values = torch.full((len(images),), torch.nan)
    with evaluating(tap.model), torch.no_grad():
        for place in range(len(images)):
            image, masks = see(images[place].image, images.parts(place))
            seen = [mask for mask in masks.values() if mask.any()]
            if not seen:
                continue
            pixels = image.as_subclass(Tensor)[None].to(device)
            inputs = pixels if input_spec is None else input_spec.normalize(pixels)
            (activations,) = tap(inputs).activations
            best = part_iou(activations[0].detach(), torch.stack(seen).to(device), threshold).amax(1)
            values[place] = best.mean().cpu()
    return values
