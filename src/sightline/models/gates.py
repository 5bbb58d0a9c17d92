"""Attention gates: a small module that multiplies a layer's output by an attention map, inside an otherwise unchanged model.

A pooling gate is the last of them: with the attention's square, scaled to a mean of 1 over the places, the model's own global
average pooling becomes attention pooling.

A gate is a child of the module whose output it reads, and a forward hook on that module applies it. So the model keeps its
class, its methods and the names of its parameters; it gains those of the gate, and copies, pickles and saves as before.

The attention of a pooling gate may read an earlier layer, whose places are finer. The gate is then a child of that layer, and a
second hook, on the module of the last feature map, applies what the first one computed in the same pass.
"""

import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from math import log2
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.models.pooling_place import pooling_place
from sightline.network.execution import record_blank
from sightline.network.layers import LayerChoice, resolve_layers
from sightline.network.layout import Layer, to_spatial

STRIDE = 16


class Gate(nn.Module):
    """One attention value for every place, a linear function of the channels there.

    A new gate is open everywhere (attention 0.88), so a pretrained model starts nearly unchanged.

    Args:
        channels: of the features.
        dimension: where the channels are: 1, or -1 for features (B, h, w, C).

    Attributes:
        detached: whether the attention that multiplies the features is a constant for the gradient.
    """

    key: ClassVar[str] = "attention_gate"

    def __init__(self, channels: int, dimension: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels))
        self.bias = nn.Parameter(torch.full((1,), 2.0))
        self.dimension = dimension
        self.detached = False

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B, h, w, 1) of the attention."""
        return F.linear(features.movedim(self.dimension, -1), self.weight, self.bias)

    def factor(self, logits: Tensor) -> Tensor:
        """Return what the features are multiplied by, (B, h, w, 1), from the logits."""
        return logits.sigmoid()

    def change(self, features: Tensor) -> Tensor:
        """Return the features times the attention's factor."""
        factor = self.factor(self(features))
        if self.detached:
            factor = factor.detach()
        return features * factor.movedim(-1, self.dimension)

    @staticmethod
    def hook(module: nn.Module, args: Any, features: Tensor) -> Tensor:
        """Change a module's output; it knows its arguments alone, so a copied model applies its own gate."""
        gate: Gate = module.get_submodule(Gate.key)  # type: ignore[assignment]
        return gate.change(features)


class _Carried(threading.local):
    """The logits of one forward pass on their way to the pooling; every thread has its own."""

    logits: Tensor | None = None

    def __reduce__(self) -> tuple[type["_Carried"], tuple[()]]:
        """Make copies and pickles carry nothing."""
        return _Carried, ()

    def take(self) -> Tensor:
        """Return the logits, once."""
        logits, self.logits = self.logits, None
        if logits is None:
            raise SightlineError(
                "the attention of attention pooling was not computed before the pooling: the layer that it reads did not run "
                "in this pass. Run the whole model, or begin at a layer before that one"
            )
        return logits


class PoolingGate(Gate):
    """A gate before global average pooling, whose factor is the attention's square over its mean over the places.

    The mean of the changed features is then the mean of the features weighted by the squared attention. A new gate weighs all
    places equally. The model then computes what it did before.

    Args:
        channels: of the features that the attention reads.
        dimension: where their channels are: 1, or -1.
        pooled_dimension: where the channels of the last feature map are, if the attention reads an earlier layer; None = it
            reads the last feature map itself.
    """

    key: ClassVar[str] = "attention_pooling"

    def __init__(self, channels: int, dimension: int = 1, pooled_dimension: int | None = None) -> None:
        super().__init__(channels, dimension)
        nn.init.zeros_(self.bias)
        self.pooled_dimension = dimension if pooled_dimension is None else pooled_dimension
        self.carried = None if pooled_dimension is None else _Carried()

    def factor(self, logits: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return the squared attention (B, h, w, 1), scaled to a mean of 1 over the places of each image.

        Args:
            logits: (B, h, w, 1) of the attention.
            size: (height, width) of the feature map that is pooled, over whose places the squared attention is averaged;
                None = that of the logits.
        """
        height, width = logits.shape[1:3]
        shares = (2 * F.logsigmoid(logits)).flatten(1).softmax(1)  # never 0 / 0, however closed the attention is
        if size is not None and size != (height, width):
            shares = F.adaptive_avg_pool2d(shares.reshape(-1, 1, height, width), size).flatten(1)
            height, width = size
        return (shares / shares.mean(1, keepdim=True)).reshape(-1, height, width, 1).to(logits.dtype)

    def weigh(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the last feature map times the attention's factor."""
        height, width = features.movedim(self.pooled_dimension, -1).shape[1:3]
        factor = self.factor(logits, (height, width))
        if self.detached:
            factor = factor.detach()
        return features * factor.movedim(-1, self.pooled_dimension)

    @staticmethod
    def hook(module: nn.Module, args: Any, features: Tensor) -> Tensor:
        """As that of `Gate`; for an attention that reads an earlier layer, keep the logits and change nothing."""
        gate: PoolingGate = module.get_submodule(PoolingGate.key)  # type: ignore[assignment]
        logits = gate(features)
        if gate.carried is None:
            return gate.weigh(features, logits)
        gate.carried.logits = logits
        return features


def _weigh_carried(gate: PoolingGate, module: nn.Module, args: Any, features: Tensor) -> Tensor:
    """Change the last feature map by the attention that an earlier layer gave."""
    assert gate.carried is not None
    return gate.weigh(features, gate.carried.take())


Kind = TypeVar("Kind", bound=Gate)


def insert_gate(model: nn.Module, layer: LayerChoice | None = None) -> tuple[str, Gate]:
    """Put a gate behind a layer; a gate that exists already stays, and is returned.

    Args:
        model: changed in place.
        layer: None = the last stage whose output has a sixteenth of the input's side, or the nearest larger.

    Returns:
        The name of the module that holds the gate, which for a sequence is its last part, and the gate.

    Raises:
        SightlineError: the layer does not exist, or gives no feature map.
    """
    return _insert(model, Gate, *attention_place(model, layer))


def insert_pooling_gate(model: nn.Module, layer: LayerChoice | None = None) -> tuple[str, PoolingGate]:
    """Put a pooling gate before global average pooling; one that exists already stays, and is returned.

    Args:
        model: changed in place.
        layer: that the attention reads, before the last feature map; None = the last feature map.

    Returns:
        The name of the module whose output is pooled, and the gate.

    Raises:
        SightlineError: the model does not classify by the mean of a feature map; the layer does not exist, gives no feature
            map, or runs after the last one; or a gate that exists reads another layer.
    """
    gate = pooling_gate_of(model)
    if gate is not None:
        reads = {module: name for name, module in model.named_modules()}[gate].rpartition(".")[0]
        if layer is not None and innermost(model, resolve_layers(model, layer)[0].name) != reads:
            raise SightlineError(
                f"layer is {layer!r}, but the attention pooling of the model reads {reads!r}; give that one"
            )
        return pooled_module(model, gate), gate
    place, channels, dimension = pooling_place(model)
    place = innermost(model, place)
    if layer is None:
        return _insert(model, PoolingGate, place, channels, dimension)
    source, channels, source_dimension = attention_place(model, layer)
    source = innermost(model, source)
    if source == place:
        return _insert(model, PoolingGate, place, channels, dimension)
    order = [call.name for call in record_blank(model).calls]  # in which they finish
    if order.index(source) > order.index(place):
        raise SightlineError(
            f"layer {source!r} runs after the last feature map, that of {place!r}; expected one before it for the attention"
        )
    _, gate = _insert(model, PoolingGate, source, channels, source_dimension, dimension)
    model.get_submodule(place).register_forward_hook(partial(_weigh_carried, gate))
    return place, gate


def pooling_gate_of(model: nn.Module) -> PoolingGate | None:
    """Return a model's pooling gate, or None."""
    return next((module for module in model.modules() if isinstance(module, PoolingGate)), None)


def pooled_module(model: nn.Module, gate: PoolingGate) -> str:
    """Return the name of the module of a model whose output its pooling gate weighs."""
    return next(
        name
        for name, module in model.named_modules()
        if any(_carries(hook, gate) for hook in module._forward_hooks.values())
        or (gate.carried is None and getattr(module, gate.key, None) is gate)
    )


def _carries(hook: Any, gate: PoolingGate) -> bool:
    return isinstance(hook, partial) and hook.func is _weigh_carried and hook.args[0] is gate


def attention_place(model: nn.Module, layer: LayerChoice | None = None) -> tuple[str, int, int]:
    """Where an attention on features stands: the layer's name, its channels, and the dimension (1 or -1) they are in.

    Args:
        model: not changed.
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
    """Return the module whose output a named one returns: for a sequence its last part, where a child would run as a layer."""
    module = model.get_submodule(name)
    while isinstance(module, nn.Sequential):
        child, module = list(module.named_children())[-1]
        name = f"{name}.{child}"
    return name


def restore_gates(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put gates where the model that a state dict comes from had them; their values are loaded with the rest."""
    kinds = {kind.key: kind for kind in (Gate, PoolingGate)}
    for key, weight in state.items():
        owner, _, name = key.removesuffix(".weight").rpartition(".")
        if name not in kinds or not key.endswith(".weight") or owner not in dict(model.named_modules()):
            continue
        if kinds[name] is PoolingGate:
            insert_pooling_gate(model, owner)
        else:
            last = resolve_layers(model, owner)[0].layout == "channels_last"
            _insert(model, kinds[name], owner, weight.shape[1], -1 if last else 1)


def _insert(
    model: nn.Module, kind: type[Kind], name: str, channels: int, dimension: int, *options: int
) -> tuple[str, Kind]:
    name = innermost(model, name)
    module = model.get_submodule(name)
    gate = getattr(module, kind.key, None)
    if not isinstance(gate, kind):
        like = next(model.parameters())
        gate = kind(channels, dimension, *options).to(like.device, like.dtype)
        module.add_module(kind.key, gate)
        module.register_forward_hook(kind.hook)
    return name, gate


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
            f"{type(model).__name__} has no stage from which the place of an attention gate can be inferred; pass layer=NAME"
        )
    coarsest = min(sides[name] for name in allowed)
    return layers[[name for name in allowed if sides[name] == coarsest][-1]]


def _feature_map(layer: Layer, shape: tuple[int, ...], size: tuple[int, int]) -> torch.Size:
    """Return the shape (B, C, h, w) of a layer's output, read in its layout."""
    return to_spatial(layer, torch.empty(shape, device="meta"), size).shape
