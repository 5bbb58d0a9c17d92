"""An explainer with the model that it explains."""

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor, nn

from sightline.explainers import Explainer
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.targets import Contrast


@dataclass(frozen=True)
class BoundExplainer:
    """An explainer with its model, as a function (images, targets) -> maps that can be pickled.

    Attributes:
        explainer: makes the maps; any callable with the arguments of an explainer does.
        model: what is explained.
        layer: the target layer.
        input_spec: normalizes the images.
        contrast: explain why it is the target and not the likeliest other class.
    """

    explainer: Explainer
    model: nn.Module
    layer: LayerSelection = None
    input_spec: InputSpec | None = None
    contrast: bool = False

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the maps (B, H, W) of images for the classes (B,)."""
        asked = self.question(targets)
        return self.explainer(self.model, images, targets=asked, layer=self.layer, input_spec=self.input_spec)

    def question(self, targets: Tensor) -> Tensor | Contrast:
        """Return what the explainer is asked about the classes (B,)."""
        return Contrast(targets) if self.contrast else targets

    def for_images(self, images: Tensor, indices: Tensor | None, *purpose: int | str) -> Self:
        """Return the same with random draws keyed as in `Explainer.for_images`; a plain function does not change."""
        if not isinstance(self.explainer, Explainer):
            return self
        return replace(self, explainer=self.explainer.for_images(images, indices, *purpose))
