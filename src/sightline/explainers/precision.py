"""Half precision: what is sensitive to it is computed in float32."""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.explainers.base import Explainer
from sightline.inference.precision import precision_asked, running_in
from sightline.network.layers import LayerSelection, resolve_layers
from sightline.network.tap import logits_of
from sightline.network.targets import Resolved, Targets, resolve_score, resolve_targets

HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(
    model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection, unless_asked: bool = False
) -> Iterator[tuple[nn.Module, Tensor, Targets, LayerSelection]]:
    """Yield what is explained in float32 at least, and keep autocast off.

    A model in half precision is copied. The targets are decided by the unchanged model: rounding may change what is predicted.
    Without half precision, nothing changes. Small differences of scores, and rules for gradients, lose most of their
    digits in half precision.

    Args:
        model: what is explained.
        inputs: (B, C, H, W), as the model takes them.
        targets: the explained classes or scores.
        layer: the target layer.
        unless_asked: let the passes be in bfloat16 where `precision="bf16"` asks for it: for methods of many passes, which are
            what it is for.
    """
    half = any(tensor.dtype in HALF for tensor in (*model.parameters(), *model.buffers()))
    device = inputs.device.type
    wide = precision_asked() != "fp32" and not unless_asked
    if not half and not wide and not torch.is_autocast_enabled(device):
        yield model, inputs, targets, layer
        return
    output = model(inputs)
    if targets is None or isinstance(targets, Tensor | int):
        resolved: Targets = resolve_targets(targets, logits_of(output))
    else:
        resolved = Resolved(resolve_score(targets, output))
    layers = None if layer is None else resolve_layers(model, layer)
    with torch.autocast(device, enabled=False), running_in("fp32") if wide else nullcontext():
        yield copy.deepcopy(model).float() if half else model, at_least_float32(inputs), resolved, layers


class PreciseExplainer(Explainer):
    """An explainer that half precision would spoil: it runs a copy of the model in float32."""

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1], in float32."""
        with in_float32(model, inputs, targets, layer) as precise:
            return self.explain_precisely(*precise)

    @abstractmethod
    def explain_precisely(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1] of a model in float32."""
