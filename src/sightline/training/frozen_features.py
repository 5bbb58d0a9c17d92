"""What a frozen model makes of images: the input of its last layer, and its last feature map."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError
from sightline.models.gates import innermost, pooled_module, pooling_gate_of
from sightline.models.pooling_place import pooling_place
from sightline.network.execution import record_blank
from sightline.network.head import head_name
from sightline.network.modes import in_this_thread
from sightline.network.tap import Tap


def last_layer(model: nn.Module) -> nn.Linear | nn.Conv2d:
    """Return the layer whose output is the model's logits: linear, or a 1 x 1 convolution.

    Raises:
        SightlineError: the model has no such layer, several, one without a bias, or changes what it returns.
    """
    names = head_name(model)
    layer = model.get_submodule(names[0])
    linear = isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and set(layer.kernel_size) == {1} and layer.groups == 1
    )
    if len(names) > 1 or not linear or layer.bias is None:
        raise SightlineError(
            f"{type(model).__name__} classifies by {' and '.join(names)} ({layer}); expected one linear layer with a bias, or "
            "one such 1 x 1 convolution, for fit: convex"
        )
    kept: list[Tensor] = []
    with _recording(layer, lambda args, output: kept.append(_pooled(output))):
        output = record_blank(model).output
    if (
        output is None
        or len(kept) < 1
        or kept[-1].shape != output.shape
        or not torch.allclose(kept[-1], output, rtol=1e-3, atol=1e-5)
    ):
        raise SightlineError(
            f"{type(model).__name__} changes what its last layer {names[0]!r} returns; expected a model whose logits are the "
            "layer's output, for fit: convex"
        )
    return layer  # type: ignore[return-value]


def inputs_of(layer: nn.Module, run: Callable[..., Any], *arguments: Tensor) -> Tensor:
    """Return the input (B, D) of the last layer when a model is run; that of a convolution is averaged over the places."""
    kept: list[Tensor] = []
    with _recording(layer, lambda args, output: kept.append(args[0].detach())):
        run(*arguments)
    return _pooled(at_least_float32(kept[-1]))


class LastMap:
    """A model's last feature map before its global average pooling, and what follows from a changed one.

    Args:
        model: in eval mode.
        image: (1, C, H, W), as the model takes it.
    """

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        self.gate = gate = pooling_gate_of(model)
        if gate is None:
            place, _, dimension = pooling_place(model)
            name = innermost(model, place)
        else:
            name, dimension = pooled_module(model, gate), gate.pooled_dimension
        self.channels_last = dimension == -1
        self._module = model.get_submodule(name)
        self._model, self._layer = model, last_layer(model)
        self._tail = Tap(model, name).tail(image)

    def of(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the maps (B, C, h, w) of inputs, before any attention pooling, and the maps that its attention reads."""
        kept: list[Tensor] = []
        read: list[Tensor] = []
        with ExitStack() as stack:
            note = _recording(
                self._module, lambda args, output: kept.append(at_least_float32(output.detach())), first=True
            )
            stack.enter_context(note)
            if self.gate is not None:
                stack.enter_context(_recording(self.gate, lambda args, output: read.append(at_least_float32(args[0]))))
            self._model(inputs)
        maps = kept[0].movedim(-1, 1) if self.channels_last else kept[0]
        return maps, None if self.gate is None else read[0].detach().movedim(self.gate.dimension, 1)

    def head_inputs(self, maps: Tensor) -> Tensor:
        """Return the input (B, D) of the last layer that follows from maps (B, C, h, w)."""
        raw = maps.movedim(1, -1) if self.channels_last else maps
        of = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
        return inputs_of(self._layer, self._tail, raw, of)


@dataclass
class Rows:
    """Rows of all images of all passes, on the CPU.

    Attributes:
        features: (N, D) inputs of the last layer, or (N, C, h, w) last feature maps.
        labels: (N,) or (N, K).
        indices: (N,) places of the images in their split.
        inside: (N, h, w) the share of each place that the object covers; None where it was not asked for.
        outside: (N, h, w) the share that the background covers.
        read: (N, C, h, w) maps that the attention of attention pooling reads, on whose places `inside` and `outside` are then.
    """

    features: Tensor
    labels: Tensor
    indices: Tensor
    inside: Tensor | None = None
    outside: Tensor | None = None
    read: Tensor | None = None


def _recording(module: nn.Module, note: Callable[[Any, Any], None], first: bool = False) -> RemovableHandle:
    """Tell what a module is called with and returns; `first` = before its other hooks change that."""
    return module.register_forward_hook(in_this_thread(lambda module, *given: note(*given)), prepend=first)


def _pooled(rows: Tensor) -> Tensor:
    return rows.mean((2, 3)) if rows.ndim == 4 else rows
