"""The target layer: which one."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from sightline.errors import SightlineError, unknown_name
from sightline.network.branch import is_within, own_modules
from sightline.network.execution import Record, record, record_blank
from sightline.network.families import Rule, check_order, declare, default_of, family_layer, known_models
from sightline.network.forms import check_open, eager, inside, without_wrappers
from sightline.network.layout import Evidence, Layer
from sightline.network.structure import last_stage, last_used

LayerChoice = str | nn.Module | Layer
LayerSelection = LayerChoice | Sequence[LayerChoice] | None


def resolve_layers(model: nn.Module, layer: LayerSelection, inputs: Tensor | None = None) -> list[Layer]:
    """Return the layers that a user's choice stands for; None chooses by `default_layer`."""
    with eager(model):
        return _resolve_layers(model, layer, inputs)


def _resolve_layers(model: nn.Module, layer: LayerSelection, inputs: Tensor | None) -> list[Layer]:
    """Return the layers that a choice stands for in a model without compiled parts."""
    check_open(model, "")
    if layer is None:
        try:
            layers = [replace(default_layer(model, inputs), inferred=True)]
        except SightlineError:
            check_open(model)  # the likely reason, if there is such a part
            raise
    elif isinstance(layer, str | nn.Module | Layer):
        layers = [_resolve(model, layer)]
    elif not layer:
        raise SightlineError("layer is an empty list; name at least one layer")
    else:
        layers = [_resolve(model, each) for each in layer]
    for each in layers:
        check_open(model, each.name)
    return [replace(each, evidence=evidence_of(model, each.name)) for each in layers]


def default_layer(model: nn.Module, inputs: Tensor | None = None) -> Layer:
    """Return the layer that a model's maps are taken from.

    It is that of the known model inside, by its family and without a forward pass. Elsewhere one forward pass tells the last
    convolutional stage.

    Args:
        model: an unwrapped model.
        inputs: (B, C, H, W), as the model takes them, for the forward pass; None = a black image.

    Raises:
        SightlineError: several known models run, or no layer is known; the message lists layers to choose from.
    """
    if layer := family_layer(model):
        return layer
    recorded = record_blank(model) if inputs is None else record(model, inputs)
    runs = [call.name for call in recorded.calls]
    known = {name: rule for name, rule in known_models(model).items() if any(is_within(run, name) for run in runs)}
    choices = [_used(model, recorded, outer, rule) for outer, rule in (known or {"": Rule()}).items()]
    if len(choices) > 1:
        raise SightlineError(
            f"{type(model).__name__} runs {len(known)} known models, {', '.join(map(repr, known))}; give layer=, such as "
            f"{' or '.join(repr(each.name) for each in choices)}"
        )
    return choices[0]


def _used(model: nn.Module, recorded: Record, outer: str, rule: Rule) -> Layer:
    """Return the layer that maps of a known model are taken from: that of its family, if the output depends on it."""
    layer = default_of(model, outer, rule)
    if layer is None:
        return declare(model, last_stage(model, recorded, outer))
    name = last_used(model, recorded, layer.name)
    return declare(model, name or last_stage(model, recorded, outer))


def _resolve(model: nn.Module, layer: LayerChoice) -> Layer:
    modules = dict(model.named_modules())
    if isinstance(layer, Layer):
        layer = replace(layer, name=without_wrappers(layer.name))
        if layer.name not in modules:
            raise unknown_name("layer", layer.name, modules)
        check_order(model, layer.name)
        return layer  # its layout is declared, unless it has been here before
    if isinstance(layer, nn.Module):
        names = [name for name, module in modules.items() if module is inside(layer)]
        if not names:
            raise SightlineError(
                f"layer is a {type(layer).__name__} that is not part of the model; give one of its modules"
            )
        check_order(model, names[0])
        return replace(declare(model, names[0]), inferred=True)
    if layer == "penultimate":
        convolutions = [name for name, module in own_modules(model).items() if isinstance(module, nn.Conv2d)]
        if len(convolutions) < 2:
            raise SightlineError(
                f"layer 'penultimate' needs two convolutions; the model has {len(convolutions)}; name a layer"
            )
        return Layer(convolutions[-2])
    layer = without_wrappers(layer)
    if not layer or layer not in modules:
        raise unknown_name("layer", layer, (name for name in modules if name))
    check_order(model, layer)
    return replace(declare(model, layer), inferred=True)


def evidence_of(model: nn.Module, name: str) -> Evidence:
    """Return what a model says about a layer: the channels of a stage of timm, and the patches that make tokens.

    Args:
        model: an unwrapped model.
        name: of the layer.
    """
    return Evidence(_stage_channels(model, name), _patches(model))


def _stage_channels(model: nn.Module, name: str) -> int | None:
    """Return how many channels a stage has by the `feature_info` of the model of timm that it is part of."""
    parts = name.split(".")
    for depth in range(len(parts)):
        outer, inner = ".".join(parts[:depth]), ".".join(parts[depth:])
        stages = getattr(model.get_submodule(outer), "feature_info", None)
        for stage in stages if isinstance(stages, list) else []:
            if stage["module"] == inner:
                return int(stage["num_chs"])
    return None


def _patches(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return the (height, width) of the patches that convolutions read without overlap, in pixels of what they read."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    found = [c.kernel_size for c in convolutions if c.kernel_size == c.stride and max(c.kernel_size) > 1]
    return tuple(dict.fromkeys((height, width) for height, width in found))
