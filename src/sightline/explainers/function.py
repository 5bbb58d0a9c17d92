"""Explainers of other libraries, and any function that makes maps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32, check_shape
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.network.layers import LayerSelection
from sightline.network.logits import logits_of
from sightline.network.targets import Targets, resolve_targets


class FunctionExplainer(Explainer):
    """A function as an explainer, so anyone's maps can be drawn, stored and measured like ours.

    Maps are brought to the images' size and to [0, 1] one by one, as ours are. The function may need gradients; what it leaves
    in the `.grad` of the model's parameters is put back.

    Args:
        function: `function(model, inputs, targets)`: from the model in eval mode, inputs (B, C, H, W) as it takes them and
            class indices (B,) to maps (B, h, w), a tensor or an array of any finite values.

    Raises:
        SightlineError: it returns something else, when it is called.
    """

    def __init__(self, function: Callable[[nn.Module, Tensor, Tensor], Any]) -> None:
        if not callable(function):
            raise SightlineError(
                f"function is a {type(function).__name__}; expected function(model, inputs, targets) -> maps"
            )
        self.function = function

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return the maps of the function."""
        if not isinstance(targets, Tensor | int) and targets is not None:
            raise SightlineError("targets: a function explains class indices alone, no contrast and no other score")
        classes = targets if isinstance(targets, Tensor) else resolve_targets(targets, logits_of(model(inputs)))
        kept = [(parameter, parameter.grad) for parameter in model.parameters()]
        try:
            with torch.enable_grad():
                found = self.function(model, inputs, classes)
        finally:
            for parameter, grad in kept:
                parameter.grad = grad
        maps = torch.as_tensor(found).detach().to(inputs.device)
        check_shape(maps, "the function's maps", (len(inputs), "height", "width"))
        return normalize_maps(resize_maps(at_least_float32(maps), (inputs.shape[-2], inputs.shape[-1])))
