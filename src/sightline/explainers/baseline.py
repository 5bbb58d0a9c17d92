"""What a map scores that never looked: random channel weights, and a Gaussian."""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from sightline._core.checks import check_positive
from sightline._core.seeding import generator, image_keys
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps
from sightline.explainers.cam import CAM, plain_activations
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets


@EXPLAINERS.register("gaussian", needs_layer=False)
class CenteredGaussian(Explainer):
    """The same centered Gaussian for every image: a chance baseline, because objects are often at the center.

    Args:
        sigma: standard deviation as a fraction of each side.
    """

    def __init__(self, sigma: float = 0.25) -> None:
        check_positive(sigma=sigma)
        self.sigma = sigma

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return the Gaussian (B, H, W); it does not depend on the model."""
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        profiles = []
        for side in inputs.shape[-2:]:
            place = (torch.arange(side, device=inputs.device, dtype=dtype) + 0.5) / side - 0.5
            profiles.append(torch.exp(-(place**2) / (2 * self.sigma**2)))
        return normalize_maps((profiles[0][:, None] * profiles[1]).expand(len(inputs), -1, -1))


@EXPLAINERS.register("randomcam", differentiable=True, needs_layer=True)
class RandomCAM(CAM):
    """Random-CAM: a chance baseline with channel weights drawn from U(-1, 1) for every image.

    The draws are keyed by the image: by its index in an evaluation, and by its pixels elsewhere (see `for_images`).

    Args:
        seed: random seed of the draws.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(plain_activations, needs_gradient=False)
        self.seed = seed
        self._keys: list[int | str] | None = None
        self._purpose: tuple[int | str, ...] = ()

    def for_images(self, images: Tensor, indices: Tensor | None = None, *purpose: int | str) -> Self:
        """Return the explainer with the weights of these images; several views of all of them share an image's weights."""
        keyed = copy.copy(self)
        keyed._keys, keyed._purpose = image_keys(images, indices), purpose
        return keyed

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]."""
        keyed = self.for_images(inputs) if self._keys is None else self
        return super(RandomCAM, keyed).explain(model, inputs, targets, layer)

    def for_rows(self, start: int, stop: int) -> Self:
        """Return the explainer with the weights of some of the images."""
        keyed = copy.copy(self)
        keyed._keys = None if self._keys is None else self._keys[start:stop]
        return keyed

    def contributions(self, number: int, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the weighted activations (B, C, h, w) of the tapped layer with this number."""
        rows, channels = activations.shape[:2]
        keys = list(range(rows)) if self._keys is None else self._keys * (rows // len(self._keys))
        if len(keys) != rows:
            raise SightlineError(f"randomcam has the keys of {len(keys)} images, and got {rows} images")
        uniform = [
            torch.rand(
                channels, generator=generator(self.seed, "randomcam", key, number, *self._purpose), dtype=torch.float64
            )
            for key in keys
        ]
        return (2 * torch.stack(uniform) - 1).to(activations)[:, :, None, None] * activations
