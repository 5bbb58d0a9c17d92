"""Batch norms folded into the convolutions before them: a copy of a model that shares all other weights.

In eval mode, batch norm scales and shifts each channel. The convolution before it can do this with its own weights:
`w' = w * gamma / sqrt(var + eps)` and `b' = (b - mean) * gamma / sqrt(var + eps) + beta`. The answers are equal up to rounding,
and each batch norm saves a pass over the memory.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, cast
from weakref import ref

import torch
from torch import Tensor, nn

Pair = tuple[str, str]  # names of a convolution and of the batch norm that follows it


@torch.no_grad()
def foldable_pairs(model: nn.Module, inputs: Tensor, tolerance: float) -> tuple[Pair, ...]:
    """Return the convolutions whose output goes into a batch norm, and these batch norms, by their names.

    The model runs once. A pair counts if each of the two runs once and the folded convolution gives what the two give. Whether
    something else reads the convolution's output too cannot be seen: compare the answers of the whole model.

    Args:
        model: in eval mode.
        inputs: (B, C, H, W) that the model takes.
        tolerance: largest difference, relative to the largest value.
    """
    names = {module: name for name, module in model.named_modules()}
    calls: dict[nn.Module, int] = {}
    outputs: list[tuple[nn.Module, Any, Tensor]] = []  # a convolution, its output while anyone holds it, its input
    found: list[Pair] = []

    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if len(args) != 1 or not isinstance(args[0], Tensor):
            return
        if isinstance(module, nn.Conv2d):
            outputs[:] = [known for known in outputs if known[1]() is not None]
            outputs.append((module, ref(output), args[0]))
            return
        for convolution, made, given in outputs:
            if made() is args[0] and (parts := _parts(convolution, cast(nn.BatchNorm2d, module))):
                folded = parts[1](parts[0](given))
                if (folded - output).abs().max() <= tolerance * output.abs().max():
                    found.append((names[convolution], names[module]))

    with ExitStack() as hooks:
        for module in names:
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_hook(see))
        model(inputs)
    return tuple(pair for pair in found if all(calls[model.get_submodule(name)] == 1 for name in pair))


@torch.no_grad()
def fold(model: nn.Module, pairs: Sequence[Pair]) -> nn.Module:
    """Return a copy of a model in which these batch norms are part of their convolutions. It shares all other weights."""
    changed: dict[int, nn.Module] = {}
    for names in pairs:
        convolution, norm = (model.get_submodule(name) for name in names)
        if parts := _parts(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm)):
            changed[id(convolution)], changed[id(norm)] = parts
    return _copy(model, changed)


def hooks_allow(model: nn.Module, pairs: Sequence[Pair], own: Callable[[Callable[..., Any]], bool]) -> bool:
    """Return whether a copy with folded batch norms gives to all hooks inside the model what the model gives them.

    The copy shares the hooks, also those that come later. A convolution, and what holds it without its batch norm, have another
    output in the copy, and a batch norm has another input.

    Args:
        model: the model that was copied.
        pairs: the batch norms in the copy that are folded.
        own: whether a hook can be called with a copy of its module.
    """
    changed = {name[:end] for name, norm in pairs for end in _ends(name) if not norm.startswith(name[:end] + ".")}
    norms = {norm for _, norm in pairs}
    for name, module in model.named_modules():
        before, after = module._forward_pre_hooks.values(), module._forward_hooks.values()
        if not name or not (before or after):
            continue
        if name in changed or (name in norms and before) or not all(map(own, (*before, *after))):
            return False
    return True


def _ends(name: str) -> list[int]:
    """Return where the names of the modules end that hold a module, and where its own name does."""
    return [place for place, letter in enumerate(name) if letter == "."] + [len(name)]


def _parts(convolution: nn.Module, norm: nn.BatchNorm2d) -> tuple[nn.Module, nn.Module] | None:
    """Return what takes the places of a convolution and of the batch norm behind it; None where they cannot be folded."""
    after = _after(norm)
    if after is None or norm.training or norm.running_var is None or norm.running_mean is None:
        return None
    weight, bias = cast(Tensor, convolution.weight), cast(Tensor | None, convolution.bias)
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale if bias is None else (bias - norm.running_mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    folded = _shell(convolution)
    order = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    made = {
        "weight": (weight * scale[:, None, None, None]).to(weight).contiguous(memory_format=order),
        "bias": shift.to(weight),
    }
    folded._parameters = {name: nn.Parameter(value, requires_grad=False) for name, value in made.items()}
    return folded, after


def _after(norm: nn.BatchNorm2d) -> nn.Module | None:
    """Return what a batch norm does after the scale and the shift, with its hooks; None where that is not known."""
    made: nn.Module | None = None
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if type(norm) is nn.BatchNorm2d:
        made = nn.Identity()
    elif type(norm).__module__.startswith("timm.") and isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        made = nn.Sequential(drop, act)
    if made is not None:
        vars(made).update({name: value for name, value in vars(norm).items() if name.startswith("_forward_hooks")})
    return made


def _copy(module: nn.Module, changed: dict[int, nn.Module]) -> nn.Module:
    """Return a copy of a module with some of its parts changed; `changed` remembers the copies, since parts may be shared."""
    if id(module) not in changed:
        changed[id(module)] = made = _shell(module)
        made._modules = {name: child and _copy(child, changed) for name, child in module._modules.items()}
    return changed[id(module)]


def _shell(module: nn.Module) -> nn.Module:
    """Return a module with the attributes of another one, without a `forward` that was set on that one alone."""
    made = copy.copy(module)
    made.__dict__.pop("forward", None)
    return made
