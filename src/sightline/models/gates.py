"""Attention gates: a small module that multiplies a layer's output by an attention map, inside a model that stays as it is.

A gate is a child of the module whose output it changes, and a forward hook on that module applies it. So the model keeps its
class, its methods and the names of its parameters; it gains those of the gate, and copies, pickles and saves as before.
"""

from collections.abc import Mapping
from contextlib import suppress
from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.network.execution import record_blank
from sightline.network.layers import LayerChoice, resolve_layers
from sightline.network.layout import Layer, to_spatial

NAME = "attention_gate"
STRIDE = 16


class Gate(nn.Module):
    """One attention value for every place, a linear function of the channels there.

    A new gate is open everywhere (attention 0.88), so that a pretrained model starts nearly as it was.

    Args:
        channels: of the features.
        dimension: where the channels are: 1, or -1 for features (B, h, w, C).

    Attributes:
        detached: whether the attention that multiplies the features is a constant for the gradient.
    """

    def __init__(self, channels: int, dimension: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels))
        self.bias = nn.Parameter(torch.full((1,), 2.0))
        self.dimension = dimension
        self.detached = False

    def forward(self, features: Tensor) -> Tensor:
        """The logits (B, h, w, 1) of the attention."""
        return F.linear(features.movedim(self.dimension, -1), self.weight, self.bias)


def insert_gate(model: nn.Module, layer: LayerChoice | None = None) -> tuple[str, Gate]:
    """Put a gate behind a layer; a gate that is there already stays, and is returned.

    Args:
        model: changed in place.
        layer: None = the last stage whose output has a sixteenth of the input's side, or the nearest larger.

    Returns:
        The name of the module that holds the gate, which for a sequence is its last part, and the gate.

    Raises:
        SightlineError: the layer does not exist, or gives no feature map.
    """
    return _insert(model, *attention_place(model, layer))


def attention_place(model: nn.Module, layer: LayerChoice | None = None) -> tuple[str, int, int]:
    """Where an attention on features stands: the layer's name, its channels, and the dimension (1 or -1) they are in.

    Args:
        model: left as it is.
        layer: None = the last stage whose output has a sixteenth of the input's side, or the nearest larger.

    Raises:
        SightlineError: the layer does not exist, or gives no feature map.
    """
    recorded = record_blank(model)
    size = (recorded.image[-2], recorded.image[-1])
    # In the order in which they finish.
    maps = {call.name: call.returned[0] for call in recorded.calls if call.alone and len(call.returned[0]) == 4}
    chosen = _middle_stage(model, maps, size) if layer is None else resolve_layers(model, layer)[0]
    if chosen.name not in maps or chosen.layout == "tokens":
        raise SightlineError(
            f"layer {chosen.name!r} gives no feature map for an attention gate; choose one that returns (B, C, h, w)"
        )
    channels = _feature_map(chosen, maps[chosen.name], size)[1]
    return chosen.name, channels, -1 if chosen.layout == "channels_last" else 1


def innermost(model: nn.Module, name: str) -> str:
    """The module whose output a named one returns: for a sequence its last part, where a child would run as a layer."""
    module = model.get_submodule(name)
    while isinstance(module, nn.Sequential):
        child, module = list(module.named_children())[-1]
        name = f"{name}.{child}"
    return name


def restore_gates(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put gates where the model that a state dict comes from had them; their values are loaded with the rest."""
    for key, weight in state.items():
        owner, _, name = key.removesuffix(".weight").rpartition(".")
        if name == NAME and key.endswith(".weight") and owner in dict(model.named_modules()):
            last = resolve_layers(model, owner)[0].layout == "channels_last"
            _insert(model, owner, weight.shape[1], -1 if last else 1)


def _insert(model: nn.Module, name: str, channels: int, dimension: int) -> tuple[str, Gate]:
    name = innermost(model, name)
    module = model.get_submodule(name)
    gate = getattr(module, NAME, None)
    if not isinstance(gate, Gate):
        like = next(model.parameters())
        gate = Gate(channels, dimension).to(like.device, like.dtype)
        module.add_module(NAME, gate)
        module.register_forward_hook(_apply)
    return name, gate


def _apply(module: nn.Module, args: Any, features: Tensor) -> Tensor:
    """The features times the attention; it knows its arguments alone, so that a copied model applies its own gate."""
    gate: Gate = module.get_submodule(NAME)  # type: ignore[assignment]
    attention = gate(features).sigmoid()
    if gate.detached:
        attention = attention.detach()
    return features * attention.movedim(-1, gate.dimension)


def _middle_stage(model: nn.Module, maps: Mapping[str, tuple[int, ...]], size: tuple[int, int]) -> Layer:
    """Return the last of the modules with the coarsest output down to the stride that start no coarser block.

    Args:
        model: an unwrapped model.
        maps: shapes of the outputs of four dimensions, in the order in which the modules finish.
        size: (height, width) of the image.
    """
    layers, sides = {}, {}
    for name in filter(None, maps):
        (layer,) = resolve_layers(model, name)
        with suppress(SightlineError):  # it is no feature map, or not in the layout that its family has
            sides[name] = _feature_map(layer, maps[name], size)[2]
            layers[name] = layer

    def whole(name: str) -> bool:
        parents = [name[:i] for i, letter in enumerate(name) if letter == "."]
        return all(
            isinstance(model.get_submodule(parent), nn.Sequential) or sides.get(parent, sides[name]) == sides[name]
            for parent in parents
        )

    allowed = [name for name in sides if round(log2(size[0] / sides[name])) <= log2(STRIDE) and whole(name)]
    if not allowed:
        raise SightlineError(
            f"{type(model).__name__} has no stage for an attention gate that can be told; give layer=, a name"
        )
    coarsest = min(sides[name] for name in allowed)
    return layers[[name for name in allowed if sides[name] == coarsest][-1]]


def _feature_map(layer: Layer, shape: tuple[int, ...], size: tuple[int, int]) -> torch.Size:
    """Return the shape (B, C, h, w) of a layer's output, read in its layout."""
    return to_spatial(layer, torch.empty(shape, device="meta"), size).shape
