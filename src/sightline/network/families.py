"""What is known of the models of timm, torchvision and Hugging Face: where maps are taken, and how layers are laid out.

A known model is recognized wherever it stands: alone, in a wrapper, or as the backbone of a larger model. All names in
this file are relative to the known model.
"""

import sys

from torch import nn

from sightline.errors import SightlineError
from sightline.network.branch import is_within, own_modules
from sightline.network.layout import Layer, Layout
from sightline.network.rules import RULES, Rule, before_attention


def known_models(model: nn.Module) -> dict[str, Rule]:
    """Return the outermost models of known families in a model, by name; the model itself has the name ""."""
    found: dict[str, Rule] = {}
    for name, module in own_modules(model).items():
        rule = rule_of(module)
        if rule is not None and not any(is_within(name, outer) for outer in found):
            found[name] = rule
    return found


def family_layer(model: nn.Module) -> Layer | None:
    """Return the target layer that the family of the one known model in a model tells.

    None where there is no such model, or where it is part of one of Hugging Face for segmentation, which may take features from
    before the last layers.
    """
    known = known_models(model)
    if len(known) != 1:
        return None
    ((outer, rule),) = known.items()
    holders = (module for name, module in model.named_modules() if is_within(outer, name))
    if any(_library(module) == "transformers" and "Segmentation" in type(module).__name__ for module in holders):
        return None
    return default_of(model, outer, rule)


def default_of(model: nn.Module, outer: str, rule: Rule) -> Layer | None:
    """Return the layer that maps of a known model are taken from; None where its rule or its modules do not tell.

    Args:
        model: holds the known model.
        outer: name of the known model in it.
        rule: of the known model.
    """
    alternatives = (rule.default,) if isinstance(rule.default, str) else rule.default or ()
    names = [name for path in alternatives if (name := _find(model, outer, path)) is not None]
    acting = (name for name in names if not isinstance(model.get_submodule(name), nn.Identity))
    return declare(model, next(acting, names[-1])) if names else None


def declare(model: nn.Module, name: str) -> Layer:
    """Return a named layer with the layout that the innermost known model around it gives it; never guessed from shapes."""
    module, (outer, rule) = model.get_submodule(name), _innermost(model, name)
    # Some types return one layout in every family; timm's LayerNorm2d permutes inside.
    if isinstance(module, nn.Conv2d | nn.GroupNorm) or type(module).__name__.endswith("2d"):
        return Layer(name)
    layout = next((layout for part, layout in rule.parts.items() if is_within(name, _join(outer, part))), rule.layout)
    if layout == "channels_first" and isinstance(module, nn.LayerNorm | nn.Linear):
        layout = "channels_last"
    return Layer(name, layout, rule.prefix if layout == "tokens" else 0)


def check_order(model: nn.Module, name: str) -> None:
    """Reject a layer whose tokens are in another order than the places of the image.

    Raises:
        SightlineError: they are.
    """
    outer, rule = _innermost(model, name)
    if any(is_within(name, _join(outer, part)) for part in rule.shuffled):
        instead = default_of(model, outer, rule)
        raise SightlineError(
            f"layer is {name!r}, whose tokens {type(model.get_submodule(outer)).__name__} keeps in another order than the "
            f"places of the image; expected a layer of its last stage{f', such as {instead.name!r}' if instead else ''}"
        )


def rule_of(module: nn.Module) -> Rule | None:
    """Return what is known of a module; None unless it is a whole model of a known family."""
    library = _library(module)
    if library is None:
        return None
    for kind in type(module).__mro__:
        if rule := RULES.get(f"{library}.{kind.__name__}"):
            return rule if isinstance(rule, Rule) else rule(module)
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
        name = _join(name, part)
    return name


def _library(module: nn.Module) -> str | None:
    """Return which library a module is a whole model of, such as "timm" or "transformers"; None for a part."""
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
        if library == "open_clip" and f"open_clip.{kind.__name__}" in RULES:
            return library
    return None


def _self_described(model: nn.Module) -> Rule:
    """Return the rule of a timm model that the table does not name."""
    if getattr(model, "num_prefix_tokens", None) is not None:
        return before_attention(model)
    layout: Layout = "channels_last" if getattr(model, "output_fmt", None) == "NHWC" else "channels_first"
    stages = getattr(model, "feature_info", None)
    if not stages:
        return Rule(None, layout)
    last = stages[-1]["module"] if isinstance(stages, list) else stages.module_name()[-1]
    # A model made with features_only=True holds its stages flat: "stages_3" is what "stages.3" was.
    return Rule(last.replace(".", "_") if hasattr(model, last.replace(".", "_")) else last, layout)


def _innermost(model: nn.Module, name: str) -> tuple[str, Rule]:
    """Return the name and the rule of the innermost known model that a module is part of."""
    modules = dict(model.named_modules())
    while (rule := rule_of(modules[name])) is None and name:
        name = name.rpartition(".")[0]
    return name, rule or Rule()


def _join(outer: str, name: str) -> str:
    return f"{outer}.{name}" if outer else name
