"""The target layer: which one, and how its output is laid out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from sightline.errors import SightlineError, unknown_name

Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Layer:
    """A target layer that declares how its output is laid out.

    Args:
        name: the module's name on the model, as in `model.named_modules()`.
        layout: `"channels_first"` (B, C, h, w), `"channels_last"` (B, h, w, C) or `"tokens"` (B, prefix + h * w, C).
        prefix: for tokens, how many of them at the start stand for no place (class and register tokens).
    """

    name: str
    layout: Layout = "channels_first"
    prefix: int = 0


LayerChoice = str | nn.Module | Layer
LayerSelection = LayerChoice | Sequence[LayerChoice] | None


class Branch(nn.Module):
    """A network that a guide adds to a model; its layers are not taken for the model's own target layer or classifier."""


def own_modules(model: nn.Module) -> dict[str, nn.Module]:
    """A model's modules by name, without the branches that guides have added and what is in them."""
    modules = dict(model.named_modules())
    added = tuple(f"{name}." for name, module in modules.items() if isinstance(module, Branch))
    return {name: module for name, module in modules.items() if not f"{name}.".startswith(added)}


def resolve_layers(model: nn.Module, layer: LayerSelection) -> list[Layer]:
    """The layers that a user's choice stands for; None chooses by the model's family."""
    if layer is None:
        return [default_layer(model)]
    if isinstance(layer, str | nn.Module | Layer):
        return [_resolve(model, layer)]
    if not layer:
        raise SightlineError("layer is an empty list; name at least one layer")
    return [_resolve(model, each) for each in layer]


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
        return _declare(model, names[0])
    if layer == "penultimate":
        convolutions = [name for name, module in own_modules(model).items() if isinstance(module, nn.Conv2d)]
        if len(convolutions) < 2:
            raise SightlineError(f"layer 'penultimate' needs two convolutions; the model has {len(convolutions)}")
        return Layer(convolutions[-2])
    if not layer or layer not in modules:
        raise unknown_name("layer", layer, (name for name in modules if name))
    return _declare(model, layer)


def _declare(model: nn.Module, name: str) -> Layer:
    """A named layer with the layout that its model's family gives it; never guessed from shapes."""
    module = model.get_submodule(name)
    family = _family(model)
    if family.endswith(("VisionTransformer", "Eva", "Beit", "MlpMixer", "Cait", "Xcit")):
        return Layer(name, "tokens", _prefix_tokens(model))
    if isinstance(module, nn.LayerNorm | nn.Linear) and not _normalizes_channels_first(module):
        return Layer(name, "channels_last")  # they act on the last dimension, so that is where the channels are
    if (family == "torchvision.SwinTransformer" and name.startswith(("features", "norm"))) or (
        getattr(model, "output_fmt", None) == "NHWC"
    ):
        return Layer(name, "channels_last")
    return Layer(name)


def default_layer(model: nn.Module) -> Layer:
    """The layer that a family's maps are taken from.

    Plain transformers: the norm before the last block's attention (after the last attention, class-token gradients are
    zero at every other token). Hierarchical ones: the last stage. CNNs: the last convolutional stage.

    Raises:
        SightlineError: the family is unknown and no convolution tells; the message lists candidate layers.
    """
    family = _family(model)
    if family == "torchvision.VisionTransformer":
        last = list(dict(model.get_submodule("encoder.layers").named_children()))[-1]
        return Layer(f"encoder.layers.{last}.ln_1", "tokens", 1)
    if family == "torchvision.SwinTransformer":
        return Layer(f"features.{len(model.get_submodule('features')) - 1}", "channels_last")  # type: ignore[arg-type]
    if family == "torchvision.MaxVit":
        return Layer(f"blocks.{len(model.get_submodule('blocks')) - 1}")  # type: ignore[arg-type]
    if family in ("torchvision.ConvNeXt", "torchvision.SqueezeNet"):
        return Layer("features")
    if family == "torchvision.GoogLeNet":
        return Layer("inception5b")
    if family.startswith("timm."):
        blocks = getattr(model, "blocks", None)
        plain = hasattr(model, "num_prefix_tokens") or family == "timm.MlpMixer"
        if plain and isinstance(blocks, nn.Module) and len(blocks) and hasattr(blocks[-1], "norm1"):  # type: ignore
            return Layer(f"blocks.{len(blocks) - 1}.norm1", "tokens", _prefix_tokens(model))  # type: ignore[arg-type]
        if family == "timm.EfficientNet":
            return Layer("bn2")
        stages = getattr(model, "feature_info", None)
        if stages and not plain:
            return _declare(model, stages[-1]["module"])
    return _last_convolutional_stage(model)


def to_spatial(layer: Layer, raw: Tensor, image_size: tuple[int, int]) -> Tensor:
    """What a layer returned, as activations (B, C, h, w)."""
    expected = 3 if layer.layout == "tokens" else 4
    if raw.ndim != expected:
        raise SightlineError(
            f"layer {layer.name!r} returned shape {tuple(raw.shape)}, which is not {layer.layout}; choose another layer, "
            "or declare its layout: sightline.Layer(name, layout=..., prefix=...)"
        )
    if layer.layout == "channels_first":
        return raw
    if layer.layout == "channels_last":
        return raw.permute(0, 3, 1, 2)
    tokens = raw[:, layer.prefix :]
    height = round((tokens.shape[1] * image_size[0] / image_size[1]) ** 0.5)
    width = tokens.shape[1] // max(height, 1)
    if height * width != tokens.shape[1] or height == 0:
        raise SightlineError(
            f"layer {layer.name!r} has {tokens.shape[1]} tokens after {layer.prefix} prefix tokens, which is no grid for an "
            f"image of {image_size}; declare the prefix: sightline.Layer(name, 'tokens', prefix=...)"
        )
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def _family(model: nn.Module) -> str:
    """`"torchvision.<Class>"`, `"timm.<Class>"`, or the bare class name of a model of neither."""
    for kind in type(model).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("torchvision", "timm"):
            return f"{package}.{kind.__name__}"
    return type(model).__name__


def _prefix_tokens(model: nn.Module) -> int:
    if _family(model) in ("timm.Cait", "timm.Xcit"):
        return 0  # their class token joins after the blocks
    return int(getattr(model, "num_prefix_tokens", 1 if _family(model).startswith("torchvision") else 0))


def _normalizes_channels_first(module: nn.Module) -> bool:
    return "2d" in type(module).__name__  # LayerNorm2d permutes inside


def _last_convolutional_stage(model: nn.Module) -> Layer:
    """The widest module that ends in the model's last convolution: nothing in it pools to a point or classifies."""
    names = [name for name, module in own_modules(model).items() if isinstance(module, nn.Conv2d)]
    if not names:
        raise _cannot_tell(model)
    stage = names[-1]
    while (parent := stage.rpartition(".")[0]) and not _ends_the_features(
        model.get_submodule(parent), names[-1], parent
    ):
        stage = parent
    parent = stage.rpartition(".")[0]
    container = model.get_submodule(parent)
    if isinstance(container, nn.Sequential):  # in a plain sequence, the norm and activation that follow belong to it
        children = list(container.named_children())
        position = [name for name, _ in children].index(stage.rpartition(".")[2])
        for name, child in children[position + 1 :]:
            if not isinstance(
                child, nn.BatchNorm2d | nn.GroupNorm | nn.ReLU | nn.GELU | nn.SiLU | nn.LeakyReLU | nn.Hardswish
            ):
                break
            stage = f"{parent}.{name}" if parent else name
    return Layer(stage)


def _ends_the_features(module: nn.Module, convolution: str, name: str) -> bool:
    """Whether a module goes on, after its last convolution, to pool to a point or to classify."""
    seen = False
    for child, part in module.named_modules(prefix=name):
        seen = seen or child == convolution
        if seen and isinstance(part, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.Linear | nn.Flatten):
            return True
    return False


def _cannot_tell(model: nn.Module) -> SightlineError:
    norms = [n for n, m in model.named_modules() if "norm" in type(m).__name__.lower() and n]
    candidates = norms[-6:] or [name for name, _ in model.named_modules() if name][-6:]
    named = ", ".join(map(repr, candidates))
    return SightlineError(
        f"cannot tell the target layer of {type(model).__name__}; give layer=, a name such as {named} "
        "(for tokens or channels-last outputs: sightline.Layer(name, layout=..., prefix=...))"
    )
