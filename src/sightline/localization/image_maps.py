"""Maps of images at their own size, by a model or from a store."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from sightline._core.fingerprint import fingerprint
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.loader import on_image
from sightline.data.map_store import MapStore
from sightline.data.transforms import eval_transform
from sightline.errors import SightlineError
from sightline.explainers import create_explainer, layer_for
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.network.tap import unwrap


class ImageMaps(ABC):
    """Gives each of some samples its map (H, W) in [0, 1] at the size of its image.

    A map covers what evaluation sees, the center square; outside it is 0.
    """

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the maps are of; JSON values."""

    @abstractmethod
    def squares(self, samples: Sequence[Sample]) -> Tensor:
        """Return the maps (n, h, w) of the images' centre squares."""

    def __call__(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Return the map (H, W) of each image, on the CPU."""
        maps = self.squares(samples).cpu()
        return [on_image(one, s.image.shape[-2:]).as_subclass(Tensor)[0] for one, s in zip(maps, samples)]


class ExplainedMaps(ImageMaps):
    """Maps that an explainer makes for the class that a model predicts.

    Args:
        model: a classifier.
        input_spec: its normalisation, and the size at which it sees the images.
        explainer: the explainer's name.
        layer: the target layer; None chooses by the model's family.
    """

    def __init__(
        self, model: nn.Module, input_spec: InputSpec, explainer: str = "gradcam", layer: LayerChoice | None = None
    ) -> None:
        self.model, self.input_spec, self.name = model, input_spec, explainer
        self.explainer = create_explainer(explainer)
        self.layer = layer_for(explainer, layer)
        self._see = eval_transform(input_spec.size[0])

    @property
    def facts(self) -> dict[str, Any]:
        """Explainer, layer, and the fingerprint of the model with its normalisation."""
        spec = self.input_spec
        return {
            "explainer": self.name,
            "layer": None if self.layer is None else str(self.layer),
            "model": fingerprint(unwrap(self.model)),
            "input": [list(spec.mean), list(spec.std), list(spec.size)],
        }

    def squares(self, samples: Sequence[Sample]) -> Tensor:
        """Return the maps (n, h, w) at the size at which the model sees the images."""
        images = torch.stack([self._see(tv_tensors.Image(s.image)).as_subclass(Tensor) for s in samples])
        device = next(self.model.parameters()).device
        return self.explainer(self.model, images.to(device), None, self.layer, self.input_spec)


class StoredMaps(ImageMaps):
    """Maps from a store of the same data set.

    Args:
        path: the folder that `sightline.explainers.maps.compute_maps` made.
        dataset: the data set.

    Raises:
        SightlineError: the store is missing, it is of another data set, or not finished.
    """

    def __init__(self, path: str | Path, dataset: ImageDataset) -> None:
        self.store = MapStore(path)
        if self.store.metadata["data"] != dataset.fingerprint:
            raise SightlineError(f"maps: those in {path} are of another data set or split")
        self.store.check_finished()

    @property
    def facts(self) -> dict[str, Any]:
        """The store's own."""
        return self.store.metadata

    def squares(self, samples: Sequence[Sample]) -> Tensor:
        """Return the stored maps (n, h, w); values outside [0, 1] are clamped."""
        return self.store.read([s.index for s in samples]).clamp(0, 1)
