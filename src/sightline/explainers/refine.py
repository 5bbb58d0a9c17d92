"""RefineCAM: a map of fine resolution, from the maps of several layers."""

import copy
import warnings
from typing import Self

import torch
from torch import Tensor, nn

from sightline._core.checks import check_count
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.cam import CAM
from sightline.explainers.places import finer_stages, warn_of_few_places
from sightline.explainers.registry import EXPLAINERS, needs_layer
from sightline.network.layers import LayerSelection, resolve_layers
from sightline.network.tap import Tap
from sightline.network.targets import Resolved, Targets, resolve_score


@EXPLAINERS.register("refinecam", needs_gradient=True, needs_layer=True)
class RefineCAM(Explainer):
    """RefineCAM: the product of the maps of several layers, each scaled to [0, 1] (Domeniconi et al. 2026).

    Give the layers as a list. One layer, or the default layer, is refined by the last stages of the next finer grids before
    it; where there is none, a warning is given, and the map is that of the method.

    Args:
        method: name of the explainer that makes the map of each layer.
        layers: number of layers that take part if one is given: the layer and up to `layers` - 1 stages before it.

    References:
        Domeniconi, Stramiglio, Lombardi, Salti, "How to Evaluate and Refine your CAM" (ICPR 2026).
    """

    def __init__(self, method: str = "gradcam++", layers: int = 3) -> None:
        check_count(layers=layers)
        self.explainer = EXPLAINERS.create(method)
        if not needs_layer(method) or method == "refinecam":
            raise SightlineError(
                f"method is {method!r}; expected an explainer with a target layer, such as 'gradcam++'"
            )
        self.layers = layers

    def for_images(self, images: Tensor, indices: Tensor | None = None, *purpose: int | str) -> Self:
        """Return the explainer with the draws of these images."""
        keyed = copy.copy(self)
        keyed.explainer = self.explainer.for_images(images, indices, *purpose)
        return keyed

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]: each layer's map is resized to the input and scaled to [0, 1] before the product."""
        layers = resolve_layers(model, layer, inputs)
        if len(layers) == 1 and self.layers > 1:
            stages = finer_stages(model, layers[0], inputs, self.layers - 1)
            if not stages:
                warnings.warn(
                    f"refinecam: no layer before {layers[0].name!r} has a finer grid; give layer= a list of layers",
                    stacklevel=2,
                )
            layers = resolve_layers(model, [*stages, *layers])
        tapped = Tap(model, layers)(inputs)
        warn_of_few_places(model, inputs, tapped.layers, tapped.activations)
        if isinstance(self.explainer, CAM):
            maps = [resize_maps(each, tapped.image_size) for each in self.explainer.raw_maps(tapped, targets)]
        else:
            resolved = Resolved(resolve_score(targets, tapped.output))
            maps = [self.explainer.explain(model, inputs, resolved, each) for each in layers]
        return normalize_maps(torch.stack([normalize_maps(each) for each in maps]).prod(0))
