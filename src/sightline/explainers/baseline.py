"""What a map scores that never looked: baselines beside Random-CAM."""

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets


@EXPLAINERS.register("gaussian", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=False)
class CenteredGaussian(Explainer):
    """The same centered Gaussian for every image: what photographs that are centered give away for nothing.

    Args:
        sigma: standard deviation as a fraction of each side.
    """

    def __init__(self, sigma: float = 0.25) -> None:
        if not sigma > 0:
            raise SightlineError(f"sigma is {sigma}; expected a positive fraction of the image's side")
        self.sigma = sigma

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """The Gaussian (B, H, W), whatever the model."""
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        profiles = []
        for side in inputs.shape[-2:]:
            place = (torch.arange(side, device=inputs.device, dtype=dtype) + 0.5) / side - 0.5
            profiles.append(torch.exp(-(place**2) / (2 * self.sigma**2)))
        return normalize_maps((profiles[0][:, None] * profiles[1]).expand(len(inputs), -1, -1))
