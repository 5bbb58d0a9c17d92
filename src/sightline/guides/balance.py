"""What guides with a weight share: the weight itself, and a term of the cross-entropy's size."""

import torch
from torch import Tensor

from sightline._core.checks import check_non_negative
from sightline._core.distributed import sum_over_processes
from sightline.errors import SightlineError
from sightline.explainers import EXPLAINERS, create_explainer, resize_maps
from sightline.explainers.cam import CAM
from sightline.guides.base import Context, Guide
from sightline.guides.losses import task_loss


class WeightedGuide(Guide):
    """A guide whose terms are added to the whole task loss.

    How large a penalty on a map is depends on the model, the image's size and the method, so that a weight that suits one
    setting is a hundred times too small in the next. With `normalize`, a term is scaled to the size of the cross-entropy of
    the same images in every batch (over all processes), as a constant, so that `weight=1` is an even balance. The logged
    term is the scaled one, and beside it stands its factor, `<term>/factor`.

    Args:
        weight: of the terms, beside a task loss of weight 1.
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
        weight: see `WeightedGuide`.
        normalize: see `WeightedGuide`.
        explainer: a differentiable class activation map, by name.
    """

    needs_tap = True

    def __init__(self, weight: float, normalize: bool, explainer: str) -> None:
        super().__init__(weight, normalize)
        self.explainer = differentiable_cam(explainer)

    def maps(self, context: Context) -> Tensor:
        """Return the maps (B, H, W) of the labels at the input's resolution, non-negative."""
        size = (context.batch.images.shape[-2], context.batch.images.shape[-1])
        return resize_maps(context.raw_maps(self.explainer, context.batch.labels)[0], size)


def differentiable_cam(name: str) -> CAM:
    """Return the class activation map of that name, for a loss that trains through it.

    Raises:
        SightlineError: The explainer is not differentiable, or not a class activation map.
    """
    explainer = create_explainer(name)
    if not EXPLAINERS[name].capabilities.get("differentiable"):
        usable = [entry.name for entry in EXPLAINERS if entry.capabilities.get("differentiable")]
        raise SightlineError(f"explainer {name!r} is not differentiable; a loss can use {', '.join(usable)}")
    if not isinstance(explainer, CAM):
        raise SightlineError(f"explainer {name!r} is not a class activation map, which a loss on maps needs")
    return explainer


def scaled_to_one(maps: Tensor) -> Tensor:
    """Divide each non-negative map (B, H, W) by its largest value; an all-zero map stays unchanged."""
    largest = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, torch.ones_like(largest))
