"""Whether the map turns with the image."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sightline._core.tensors import check_maps
from sightline.errors import SightlineError
from sightline.explainers import Explainer
from sightline.faithfulness.similarity import pearson
from sightline.metric_base.base import ExplainerMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.views import check_views, dihedral_views


def view_stability(
    explain: Callable[[Tensor, Tensor], Tensor], images: Tensor, maps: Tensor, targets: Tensor, views: int | None = None
) -> Tensor:
    """Return the mean correlation of each map with the maps of the flipped and turned images, flipped and turned back.

    A map of zeros correlates with nothing and counts as 0.

    Args:
        explain: (images, targets) -> maps (B, H, W).
        images: (B, C, H, W).
        maps: (B, H, W), what `explain` gives for them.
        targets: (B,) the explained classes, the same in every view.
        views: 2, 4 or 8 elements of D4 (see `dihedral_views`), the image itself among them; None = 8, or 4 for images that
            are not square.

    Returns:
        (B,) Pearson's r in [-1, 1], mean over the views; 1 where the map turns with the image.
    """
    check_maps(maps, images[:, 0].shape)
    height, width = images.shape[-2:]
    others = dihedral_views((8 if height == width else 4) if views is None else views)[1:]
    if not others:
        raise SightlineError("views is 1; expected 2, 4 or 8, the image itself among them")
    check_views(others, (height, width))
    back = [view.inverse(explain(view(images), targets)) for view in others]
    return torch.stack([pearson(maps, again) for again in back]).mean(0).to(maps.dtype)


@register("view_stability")
class ViewStability(ExplainerMetric):
    """Mean correlation of the map with the maps of the flipped and turned image, turned back; in [-1, 1].

    Higher is better; 1 for a map that turns with the image. This metric is not from a paper.

    Args:
        views: number of flips and quarter turns: 2, 4 or 8; None = 8, or 4 for images that are not square.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.rand(1, 3, 8, 8)
        >>> metric = sl.metrics.ViewStability(model, "gaussian")  # a symmetric map
        >>> metric.update(images, sl.explain(model, images, "gaussian"))
        >>> round(metric.compute().item(), 3)
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        explainer: str | Explainer,
        *,
        views: int | None = None,
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, explainer, layer=layer, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.views = views

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`view_stability` of each image."""
        return view_stability(
            observation.require("explain"),
            observation.require("images"),
            observation.require("maps"),
            observation.mapped_classes,
            self.views,
        )
