"""The target layer: which one."""

from collections.abc import Sequence

from torch import nn

from sightline.errors import SightlineError, unknown_name
from sightline.network.branch import own_modules
from sightline.network.families import declare, default_of, known_models
from sightline.network.layout import Layer
from sightline.network.structure import last_convolutional_stage

LayerChoice = str | nn.Module | Layer
LayerSelection = LayerChoice | Sequence[LayerChoice] | None


def resolve_layers(model: nn.Module, layer: LayerSelection) -> list[Layer]:
    """Return the layers that a user's choice stands for; None chooses by the model's family."""
    if layer is None:
        return [default_layer(model)]
    if isinstance(layer, str | nn.Module | Layer):
        return [_resolve(model, layer)]
    if not layer:
        raise SightlineError("layer is an empty list; name at least one layer")
    return [_resolve(model, each) for each in layer]


def default_layer(model: nn.Module) -> Layer:
    """Return the layer that a model's maps are taken from: that of the known model in it, else its last convolutional stage.

    Raises:
        SightlineError: there are several known models, or neither a known model nor a convolution; the message lists
            candidate layers.
    """
    known = known_models(model)
    if not known:
        return Layer(last_convolutional_stage(model))
    layers = [default_of(model, name, rule) for name, rule in known.items()]
    if len(layers) > 1:
        raise SightlineError(
            f"{type(model).__name__} holds {len(known)} known models, {', '.join(map(repr, known))}; give layer=, such as "
            f"{' or '.join(repr(each.name) for each in layers)}"
        )
    return layers[0]


def _resolve(model: nn.Module, layer: LayerChoice) -> Layer:
    modules = dict(model.named_modules())
    if isinstance(layer, Layer):
        if layer.name not in modules:
            raise unknown_name("layer", layer.name, modules)
        return layer
    if isinstance(layer, nn.Module):
        names = [name for name, module in modules.items() if module is layer]
        if not names:
            raise SightlineError(
                f"layer is a {type(layer).__name__} that is not part of the model; give one of its modules"
            )
        return declare(model, names[0])
    if layer == "penultimate":
        convolutions = [name for name, module in own_modules(model).items() if isinstance(module, nn.Conv2d)]
        if len(convolutions) < 2:
            raise SightlineError(f"layer 'penultimate' needs two convolutions; the model has {len(convolutions)}")
        return Layer(convolutions[-2])
    if not layer or layer not in modules:
        raise unknown_name("layer", layer, (name for name in modules if name))
    return declare(model, layer)
