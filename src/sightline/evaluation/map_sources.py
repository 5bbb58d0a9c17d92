"""Where the maps of an evaluation come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError
from sightline.explainers import Explainer, FunctionExplainer, create_explainer
from sightline.explainers.base import normalize_maps, resize_maps
from sightline.explainers.registry import needs_layer
from sightline.metric_base.bound_explainer import BoundExplainer
from sightline.metrics import Observation
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection

Source = Explainer | Callable[[nn.Module, Tensor, Tensor], Any] | Tensor
"""The source of maps: an explainer, a function (see `FunctionExplainer`), or finished maps (N, h, w) by image index."""


@dataclass(frozen=True)
class MapSource:
    """An explainer of one model, or finished maps.

    Attributes:
        name: Name of the results.
        layer: The explainer's target layer; None if it needs none.
        explainer: Makes the maps; None for finished ones.
        explain: The explainer with its model, (images, targets) -> maps; None for finished maps.
        finished: (N, h, w) by image index; None for an explainer.
    """

    name: str
    layer: LayerSelection
    explainer: Explainer | None = None
    explain: BoundExplainer | None = None
    finished: Tensor | None = None

    def add_maps(self, observation: Observation, maps: Tensor | None = None) -> Observation:
        """Return the observation of a batch with the maps of its images.

        Args:
            observation: What is known of the batch.
            maps: (B, H, W), where the explainer has made them already.
        """
        if maps is not None:
            return replace(observation, maps=maps, explain=self.explain)
        if self.explain is None:
            return replace(observation, maps=self._select(observation))
        images = observation.require("images")
        explain = self.explain.for_images(images, observation.indices)
        maps = explain(images, observation.mapped_classes)
        return replace(observation, maps=maps, explain=self.explain)

    def _select(self, observation: Observation) -> Tensor:
        """Return the finished maps of a batch's images, at their size and in [0, 1]."""
        assert self.finished is not None
        maps, indices = self.finished, observation.require("indices").cpu()
        if maps.ndim != 3 or len(maps) <= int(indices.max()):
            raise SightlineError(
                f"the saved maps {self.name!r} have shape {tuple(maps.shape)}; expected (N, height, width) with N above the "
                f"greatest index of an image, {int(indices.max())}"
            )
        images = observation.require("images")
        found = at_least_float32(maps[indices].to(images.device))
        return normalize_maps(resize_maps(found, (images.shape[-2], images.shape[-1])))


def make_sources(
    wanted: Sequence[str] | Mapping[str, Source],
    model: nn.Module,
    layer: LayerSelection,
    input_spec: InputSpec | None,
    contrast: bool,
) -> list[MapSource]:
    """Return the sources by name, or by the name that their results shall have."""
    given = wanted if isinstance(wanted, Mapping) else {name: create_explainer(name) for name in wanted}
    sources = []
    for name, source in given.items():
        own_layer = layer if needs_layer(name) else None
        if isinstance(source, Tensor):
            sources.append(MapSource(name, own_layer, finished=source))
            continue
        explainer = source if isinstance(source, Explainer) else FunctionExplainer(source)
        explain = BoundExplainer(explainer, model, own_layer, input_spec, contrast)
        sources.append(MapSource(name, own_layer, explainer, explain))
    return sources
