"""What is known of the models of timm, torchvision and Hugging Face: where maps are taken, and how layers are laid out.

A known model is recognized wherever it stands: alone, in a wrapper, or as the backbone of a larger model. All names in
this file are relative to the known model.
"""

import sys
from dataclasses import dataclass

from torch import nn

from sightline.network.branch import own_modules
from sightline.network.layout import Layer, Layout
from sightline.network.structure import cannot_tell, last_convolutional_stage


@dataclass(frozen=True)
class Rule:
    """What is known of a family.

    Args:
        default: name of the layer that maps are taken from; a negative part counts children from the end, so that
            `"blocks.-1.norm1"` is the norm of the last block. None = the last convolutional stage.
        layout: how layers return their output, except those whose type tells.
        prefix: for tokens, how many of them at the start stand for no place.
    """

    default: str | None = None
    layout: Layout = "channels_first"
    prefix: int = 0


# By library and class; a subclass that is not listed goes by its nearest listed base. timm's other models describe
# themselves, and other torchvision models end in a convolutional stage.
#
# Plain transformers: the norm before the last block's attention. After the last attention, the gradients of a
# class-token model are zero at every other token. Hierarchical ones: the last stage.
RULES: dict[str, Rule] = {
    "timm.Cait": Rule("blocks.-1.norm1", "tokens"),  # the class token joins after the blocks, here and in XCiT
    "timm.EfficientNet": Rule("bn2"),
    "timm.MlpMixer": Rule("blocks.-1.norm1", "tokens"),
    "timm.Xcit": Rule("blocks.-1.norm1", "tokens"),
    "torchvision.ConvNeXt": Rule("features"),
    "torchvision.GoogLeNet": Rule("inception5b"),
    "torchvision.MaxVit": Rule("blocks.-1"),
    "torchvision.SqueezeNet": Rule("features"),
    "torchvision.SwinTransformer": Rule("features.-1", "channels_last"),
    "torchvision.VisionTransformer": Rule("encoder.layers.-1.ln_1", "tokens", prefix=1),
}


def known_models(model: nn.Module) -> dict[str, Rule]:
    """Return the outermost models of known families in a model, by name; the model itself has the name ""."""
    found: dict[str, Rule] = {}
    for name, module in own_modules(model).items():
        rule = rule_of(module)
        if rule is not None and not any(is_within(name, outer) for outer in found):
            found[name] = rule
    return found


def default_of(model: nn.Module, outer: str, rule: Rule) -> Layer:
    """Return the layer that maps of a known model are taken from.

    Args:
        model: holds the known model.
        outer: name of the known model in it.
        rule: of the known model.

    Raises:
        SightlineError: the known model is not built as its rule says.
    """
    known = model.get_submodule(outer)
    if rule.default is None and rule.layout != "tokens":
        return declare(model, _join(outer, last_convolutional_stage(known)))
    name = ""
    for part in (rule.default or "").split("."):
        children = [child for child, _ in known.get_submodule(name).named_children()]
        if part.startswith("-") and int(part) + len(children) >= 0:
            part = children[int(part)]
        if part not in children:
            raise cannot_tell(known)
        name = _join(name, part)
    return declare(model, _join(outer, name))


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
    if library == "timm":
        return _self_described(module)
    return Rule() if library == "torchvision" else None


def is_within(name: str, outer: str) -> bool:
    """Return whether a module's name is another one's, or that of a part of it; "" is the whole model."""
    return not outer or name == outer or name.startswith(f"{outer}.")


def _library(module: nn.Module) -> str | None:
    """Return which library a module is a whole model of: "timm", "torchvision" or "transformers"; None for a part."""
    for kind in type(module).__mro__:
        library = kind.__module__.partition(".")[0]
        if library == "timm" and hasattr(module, "forward_features"):
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
    stages = getattr(model, "feature_info", None)
    layout: Layout = "channels_last" if getattr(model, "output_fmt", None) == "NHWC" else "channels_first"
    return Rule(stages[-1]["module"] if stages else None, layout)


def _innermost_rule(model: nn.Module, name: str) -> Rule:
    """Return the rule of the innermost known model that a module is part of."""
    modules = dict(model.named_modules())
    while (rule := rule_of(modules[name])) is None and name:
        name = name.rpartition(".")[0]
    return rule or Rule()


def _join(outer: str, name: str) -> str:
    return f"{outer}.{name}" if outer and name else outer or name
