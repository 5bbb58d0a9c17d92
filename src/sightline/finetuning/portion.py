"""The last portion of a model: a layer and everything that runs after it."""

from torch import Tensor, nn

from sightline.errors import SightlineError, unknown_name
from sightline.network.branch import is_within
from sightline.network.execution import record


def check_layer(model: nn.Module, layer: str, argument: str) -> None:
    """Raise if a model has no module of this name.

    Args:
        model: an unwrapped model.
        layer: the name.
        argument: what the error calls it.
    """
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        raise unknown_name(argument, layer, names)


def modules_from(model: nn.Module, layer: str, inputs: Tensor) -> list[nn.Module]:
    """Return the modules that run from a layer on: the layer, and what starts after it; parts of these are not listed.

    A module around the layer is not among them, nor are the parameters that it holds itself, because it starts before.

    Args:
        model: an unwrapped model.
        layer: the name of a module.
        inputs: (B, C, H, W) as the model takes them; the first image is used.

    Raises:
        SightlineError: the layer does not run, runs more than once, or what follows it also runs before it.
    """
    names = [call.name for call in record(model, inputs).calls]  # in the order in which they finish
    runs = names.count(layer)
    if runs != 1:
        raise SightlineError(
            f"layer {layer!r} runs {runs or 'no'} times in a forward pass; choose one that runs once, such as "
            f"{next((repr(name) for name in reversed(names) if name and names.count(name) == 1), 'another')}"
        )
    end = names.index(layer)
    inside = [name for name in names if is_within(name, layer)]
    after = [name for name in names[end + 1 :] if not is_within(layer, name)]
    before = {name for name in names[:end] if not is_within(name, layer)}
    for name in after:
        if name in before and next(model.get_submodule(name).parameters(), None) is not None:
            raise SightlineError(f"{name!r} runs before the layer {layer!r} and after it; choose an earlier layer")
    chosen = {*inside, *after} - before
    outermost = [n for n in chosen if not any(n != other and is_within(n, other) for other in chosen)]
    return [model.get_submodule(name) for name in sorted(outermost, key=names.index)]
