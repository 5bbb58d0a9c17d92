"""The part of a model that classifies."""

from torch import nn

from sightline.errors import SightlineError
from sightline.network.branch import own_modules


def head_name(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that hold the classifier: as timm declares it, else the last linear or convolution layer."""
    declared = getattr(model, "pretrained_cfg", {}).get("classifier")
    if declared:
        return (declared,) if isinstance(declared, str) else tuple(declared)
    layers = [n for n, module in own_modules(model).items() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise SightlineError(f"{type(model).__name__} has no linear or convolution layer; its head cannot be told")
    return (layers[-1],)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the classifier, for stages that train the head alone."""
    return [p for name in head_name(model) for p in model.get_submodule(name).parameters()]
