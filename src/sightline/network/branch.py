"""Networks that a guide adds to a model, and what of the model is its own."""

from torch import nn


class Branch(nn.Module):
    """A network that a guide adds to a model; its layers are not taken for the model's own target layer or classifier."""


def own_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's modules by name, without the branches that guides have added and what is in them."""
    modules = dict(model.named_modules())
    added = tuple(f"{name}." for name, module in modules.items() if isinstance(module, Branch))
    return {name: module for name, module in modules.items() if not f"{name}.".startswith(added)}


def is_within(name: str, outer: str) -> bool:
    """Return whether a module's name is another one's, or that of a part of it; "" is the whole model."""
    return not outer or name == outer or name.startswith(f"{outer}.")
