"""What guides with a weight share: the weight itself, and a term of the cross-entropy's size."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sightline._core.checks import check_non_negative
from sightline._core.distributed import sum_over_processes
from sightline.errors import SightlineError
from sightline.explainers import EXPLAINERS, create_explainer, resize_maps
from sightline.explainers.cam import CAM
from sightline.explainers.forward_cam import ForwardCAM
from sightline.objectives.base import Context, Guide
from sightline.objectives.losses import task_loss


class WeightedGuide(Guide):
    """A guide whose terms are added to the whole task loss.

    How large a penalty on a map is depends on the model, the image's size and the method, so a weight that suits one
    setting is a hundred times too small in the next. With `normalize`, a term is scaled to the size of the cross-entropy of
    the same images in every batch (over all processes), as a constant, so `weight=1` is an even balance. The logged
    term is the scaled one, and its factor is logged as `<term>/factor`.

    Args:
        weight: of the terms; the task loss has weight 1.
        normalize: scale each term to the cross-entropy's size.
    """

    def __init__(self, weight: float, normalize: bool) -> None:
        super().__init__()
        check_non_negative(weight=weight)
        self.weight, self.normalize = float(weight), normalize

    def loss_weights(self, alone: bool) -> tuple[float, float]:
        """(1, weight)."""
        return 1.0, self.weight

    def balanced(self, name: str, values: Tensor, known: Tensor, context: Context) -> Tensor:
        """Return a term's values (B,), scaled to the sum of the cross-entropy over the known images (B,) if asked for."""
        if not self.normalize:
            return values
        task = task_loss(context.logits.detach(), context.batch.labels).to(values)
        sums = torch.stack([(task * known).sum(), (values.detach() * known).sum()])
        if self.training:
            sum_over_processes(sums)
        factor = torch.where(sums[1] > 0, sums[0] / sums[1], torch.ones_like(sums[0]))
        context.figures[f"{name}/factor"] = factor
        return values * factor


class MapGuide(WeightedGuide):
    """A weighted guide that looks at the class activation map of each image's label.

    Args:
        explainer: a class activation map, by name or as a mapping of `name` and options, see `explain_with`.
    """

    needs_tap = True

    def __init__(self, weight: float, normalize: bool, explainer: str | Mapping[str, Any]) -> None:
        super().__init__(weight, normalize)
        self.explainer = explain_with(self, explainer)

    def maps(self, context: Context) -> Tensor:
        """Return the maps (B, H, W) of the labels at the input's resolution, non-negative."""
        size = (context.batch.images.shape[-2], context.batch.images.shape[-1])
        return resize_maps(context.raw_maps(self.explainer, context.batch.labels)[0], size)


def explain_with(guide: Guide, config: str | Mapping[str, Any]) -> CAM | ForwardCAM:
    """Return the class activation map that a guide trains through, and set what the guide needs for it.

    Args:
        guide: `second_order` and `needs_pixels` are set: a map whose weights are constants needs one backward pass alone, and
            runs the model again from pixels.
        config: a name, or a mapping with `name` and options: a differentiable class activation map; or `ablationcam` or
            `scorecam`, whose channel weights are constants.

    Raises:
        SightlineError: A loss cannot train through the explainer, or it is no class activation map.
    """
    name, options = named_explainer(config, "explainer")
    explainer = create_explainer(name, **options)
    constant_weights = isinstance(explainer, ForwardCAM)
    if not constant_weights and not EXPLAINERS[name].capabilities.get("differentiable"):
        usable = [entry.name for entry in EXPLAINERS if entry.capabilities.get("differentiable")]
        raise SightlineError(
            f"explainer {name!r} is not differentiable; a loss can use {', '.join(usable)}, and with constant channel weights "
            "ablationcam and scorecam"
        )
    if not isinstance(explainer, CAM | ForwardCAM):
        raise SightlineError(
            f"explainer {name!r} is not a class activation map, which a loss on maps needs; use one such as 'gradcam'"
        )
    guide.second_order, guide.needs_pixels = not constant_weights, guide.needs_pixels or constant_weights
    return explainer


def named_explainer(config: str | Mapping[str, Any], argument: str) -> tuple[str, dict[str, Any]]:
    """Return the name and options of an explainer, given as a name or as a mapping with `name` and options."""
    options = {"name": config} if isinstance(config, str) else dict(config)
    if not isinstance(name := options.pop("name", None), str):
        raise SightlineError(
            f"{argument} is {config!r}; expected an explainer's name, or a mapping with name and options"
        )
    return name, options


def scaled_to_one(maps: Tensor) -> Tensor:
    """Divide each non-negative map (B, H, W) by its largest value; an all-zero map stays unchanged."""
    largest = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, torch.ones_like(largest))
