"""What is known of the models of timm, torchvision and Hugging Face: where maps are taken, and how layers are laid out.

A known model is recognized wherever it stands: alone, in a wrapper, or as the backbone of a larger model. All names in
this file are relative to the known model.
"""

import sys
from dataclasses import dataclass

from torch import nn

from sightline.network.branch import is_within, own_modules
from sightline.network.layout import Layer, Layout


@dataclass(frozen=True)
class Rule:
    """What is known of a family.

    Args:
        default: name of the layer that maps are taken from, or names in different versions of the library, of which the
            first that exists counts. A negative part counts children from the end, so that `"blocks.-1.norm1"` is the norm
            of the last block. None = told by what the model runs.
        layout: how layers return their output, except those whose type tells.
        prefix: for tokens, how many of them at the start stand for no place.
    """

    default: str | tuple[str, ...] | None = None
    layout: Layout = "channels_first"
    prefix: int = 0


# By library and class; a subclass that is not listed goes by its nearest listed base. timm's other models describe
# themselves.
#
# Plain transformers: the norm before the last block's attention. After the last attention, the gradients of a
# class-token model are zero at every other token. Hierarchical ones and CNNs: the last stage. Models for segmentation: the
# last stage of the backbone, since the output is one linear layer behind what follows.
RULES: dict[str, Rule] = {
    "timm.Cait": Rule("blocks.-1.norm1", "tokens"),  # the class token joins after the blocks, here and in XCiT
    "timm.EfficientNet": Rule("bn2"),
    "timm.MlpMixer": Rule("blocks.-1.norm1", "tokens"),
    "timm.Xcit": Rule("blocks.-1.norm1", "tokens"),
    "torchvision.AlexNet": Rule("features"),
    "torchvision.ConvNeXt": Rule("features"),
    "torchvision.DeepLabV3": Rule("backbone.-1"),
    "torchvision.DenseNet": Rule("features"),
    "torchvision.EfficientNet": Rule("features"),
    "torchvision.FCN": Rule("backbone.-1"),
    "torchvision.GoogLeNet": Rule("inception5b"),
    "torchvision.Inception3": Rule("Mixed_7c"),
    "torchvision.LRASPP": Rule("backbone.-1"),
    "torchvision.MNASNet": Rule("layers"),
    "torchvision.MaxVit": Rule("blocks.-1"),
    "torchvision.MobileNetV2": Rule("features"),
    "torchvision.MobileNetV3": Rule("features"),
    "torchvision.RegNet": Rule("trunk_output"),
    "torchvision.ResNet": Rule("layer4"),
    "torchvision.ShuffleNetV2": Rule("conv5"),
    "torchvision.SqueezeNet": Rule("features"),
    "torchvision.SwinTransformer": Rule("features.-1", "channels_last"),
    "torchvision.VGG": Rule("features"),
    "torchvision.VisionTransformer": Rule("encoder.layers.-1.ln_1", "tokens", prefix=1),
    "transformers.SegformerModel": Rule(("stages.-1.layer_norm", "encoder.layer_norm.-1"), "tokens"),
}


def known_models(model: nn.Module) -> dict[str, Rule]:
    """Return the outermost models of known families in a model, by name; the model itself has the name ""."""
    found: dict[str, Rule] = {}
    for name, module in own_modules(model).items():
        rule = rule_of(module)
        if rule is not None and not any(is_within(name, outer) for outer in found):
            found[name] = rule
    return found


def family_layer(model: nn.Module) -> Layer | None:
    """Return the target layer that the family of the one known model in a model tells; None where there is no such model."""
    layers = [default_of(model, outer, rule) for outer, rule in known_models(model).items()]
    return layers[0] if len(layers) == 1 else None


def default_of(model: nn.Module, outer: str, rule: Rule) -> Layer | None:
    """Return the layer that maps of a known model are taken from; None where its rule or its modules do not tell.

    Args:
        model: holds the known model.
        outer: name of the known model in it.
        rule: of the known model.
    """
    alternatives = (rule.default,) if isinstance(rule.default, str) else rule.default or ()
    names = [name for path in alternatives if (name := _find(model, outer, path)) is not None]
    return declare(model, names[0]) if names else None


def declare(model: nn.Module, name: str) -> Layer:
    """Return a named layer with the layout that the innermost known model around it gives it; never guessed from shapes."""
    module, rule = model.get_submodule(name), _innermost_rule(model, name)
    # Some types return one layout in every family; timm's LayerNorm2d permutes inside.
    if isinstance(module, nn.Conv2d | nn.GroupNorm) or type(module).__name__.endswith("2d"):
        return Layer(name)
    if rule.layout == "channels_first" and isinstance(module, nn.LayerNorm | nn.Linear):
        return Layer(name, "channels_last")
    return Layer(name, rule.layout, rule.prefix)


def rule_of(module: nn.Module) -> Rule | None:
    """Return what is known of a module; None unless it is a whole model of a known family."""
    library = _library(module)
    if library is None:
        return None
    for kind in type(module).__mro__:
        if rule := RULES.get(f"{library}.{kind.__name__}"):
            return rule
    return _self_described(module) if library == "timm" else None


def _find(model: nn.Module, outer: str, path: str) -> str | None:
    """Return the name of the module at a path in a known model, as rules give it; None where there is none."""
    name = outer
    for part in path.split("."):
        children = [child for child, _ in model.get_submodule(name).named_children()]
        if part.startswith("-") and int(part) + len(children) >= 0:
            part = children[int(part)]
        if part not in children:
            return None
        name = f"{name}.{part}" if name else part
    return name


def _library(module: nn.Module) -> str | None:
    """Return which library a module is a whole model of: "timm", "torchvision" or "transformers"; None for a part."""
    for kind in type(module).__mro__:
        library = kind.__module__.partition(".")[0]
        # A model made with features_only=True has no forward_features; a block has a method feature_info.
        whole = hasattr(module, "forward_features") or not callable(getattr(module, "feature_info", callable))
        if library == "timm" and whole and kind.__name__ != "FeatureGetterNet":  # that one only calls the model inside
            return library
        public = getattr(sys.modules[kind.__module__], "__all__", ())
        if library == "torchvision" and kind.__module__.startswith("torchvision.models.") and kind.__name__ in public:
            return library
        if library == "transformers" and kind.__name__ == "PreTrainedModel":
            return library
    return None


def _self_described(model: nn.Module) -> Rule:
    """Return the rule of a timm model that the table does not name."""
    if (prefix := getattr(model, "num_prefix_tokens", None)) is not None:
        blocks = list(getattr(model, "blocks", []))
        return Rule("blocks.-1.norm1" if blocks and hasattr(blocks[-1], "norm1") else None, "tokens", prefix)
    layout: Layout = "channels_last" if getattr(model, "output_fmt", None) == "NHWC" else "channels_first"
    stages = getattr(model, "feature_info", None)
    if not stages:
        return Rule(None, layout)
    last = stages[-1]["module"] if isinstance(stages, list) else stages.module_name()[-1]
    # A model made with features_only=True holds its stages flat: "stages_3" is what "stages.3" was.
    return Rule(last.replace(".", "_") if hasattr(model, last.replace(".", "_")) else last, layout)


def _innermost_rule(model: nn.Module, name: str) -> Rule:
    """Return the rule of the innermost known model that a module is part of."""
    modules = dict(model.named_modules())
    while (rule := rule_of(modules[name])) is None and name:
        name = name.rpartition(".")[0]
    return rule or Rule()
