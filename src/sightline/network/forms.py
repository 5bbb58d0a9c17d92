"""Forms of a model: compiled parts run as plain PyTorch here, and parts that no hook can enter are named."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from sightline._core.exclusive import exclusive
from sightline.errors import SightlineError

WRAPPED = "_orig_mod"  # under which the wrapper of `torch.compile` holds a module
_FIXED = re.compile("Guard failed|Expected input")
_OTHER_TYPES = re.compile(
    r"Input type .* (bias|weight) type|expected scalar type|mixed dtype|to have the same dtype|must have the same dtype"
)
_OTHER_CHANNELS = re.compile(r"to have \d+ channels, but got|running_mean should contain")
_OTHER_SIZE = re.compile(
    r"(?i:input (image )?(height|width|size)\b.* match)|Wrong image (height|width|size)|shapes cannot be multiplied|"
    r"Kernel size can't be greater|Output size is too small"
)
_INFERENCE = re.compile("Inference tensors cannot be saved")
COMPILED = "_torchdynamo_orig_callable"  # under which a compiled function holds the function
_entered = threading.local()  # .models: those whose parts all run as plain PyTorch in this thread at present


def inside(module: nn.Module) -> nn.Module:
    """Return the module in the wrapper of `torch.compile`, or the module itself."""
    while type(module).__name__ == "OptimizedModule":
        module = getattr(module, WRAPPED)
    return module


def compiled_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules that `torch.compile` or `module.compile()` has compiled, without wrappers."""
    modules = list(model.modules())
    wrapped = {inside(module) for module in modules if inside(module) is not module}
    return wrapped | {m for m in modules if m._compiled_call_impl is not None or _plain_forward(m) is not None}


@contextmanager
def eager(model: nn.Module, around: Iterable[str] | None = None) -> Iterator[None]:
    """Let compiled parts of a model run as plain PyTorch while entered, since no hook acts in what is compiled.

    Wrappers of `torch.compile` are out of the model meanwhile, and out of the names of its modules. The model belongs to this
    thread: another thread that enters with one of the model's modules waits.

    Args:
        model: an unwrapped model.
        around: names of layers; what does not hold one of them stays compiled. None = no part stays compiled.
    """
    models: list[nn.Module] = vars(_entered).setdefault("models", [])
    if any(each is model for each in models):
        yield
        return
    with exclusive(list(model.modules())), ExitStack() as undo:
        if around is None:
            models.append(model)
            undo.callback(lambda: models.pop(next(n for n, each in enumerate(models) if each is model)))
        for holder, parts in list(_holders(model, around)):
            if holder._compiled_call_impl is not None:
                undo.callback(setattr, holder, "_compiled_call_impl", holder._compiled_call_impl)
                holder._compiled_call_impl = None
            if (forward := _plain_forward(holder)) is not None:
                kept = {name: vars(holder)[name] for name in ["forward"] if name in vars(holder)}
                undo.callback(vars(holder).update, kept)
                undo.callback(vars(holder).pop, "forward")
                vars(holder)["forward"] = forward
            for name in parts:
                if (part := holder._modules[name]) is not None and inside(part) is not part:
                    undo.callback(holder._modules.__setitem__, name, part)
                    holder._modules[name] = inside(part)
        yield


def _holders(model: nn.Module, around: Iterable[str] | None) -> Iterator[tuple[nn.Module, list[str]]]:
    """Yield each module that is to run as plain PyTorch, with the names of its parts that are too."""
    if around is None:
        for module in model.modules():
            if inside(module) is module and not isinstance(module, torch.jit.ScriptModule):
                yield module, list(module._modules)
        return
    for layer in around:
        holder = model
        outer = layer.split(".")[:-1]
        for part in outer:
            if (below := holder._modules.get(part)) is None:  # there is no such layer, as the caller will find
                break
            yield holder, [part]
            holder = inside(below)
        yield holder, []  # the layer itself may stay compiled: a hook on its wrapper acts


def _plain_forward(module: nn.Module) -> Callable[..., Any] | None:
    """Return what a module's compiled `forward` was made from; None where it is not compiled."""
    declared = getattr(type(module), "forward", None)
    forward = getattr(vars(module).get("forward", declared), COMPILED, None)
    if forward is None:
        return None
    unbound = forward in (declared, getattr(declared, COMPILED, None))
    return forward.__get__(module) if unbound else forward


def without_wrappers(name: str) -> str:
    """Return the name that a module has while the wrappers of `torch.compile` are out of the model."""
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def is_exported(module: nn.Module) -> bool:
    """Return whether a module is what `torch.export` made; it stays in the mode that it was exported in."""
    return any(kind.__module__ == "torch.export._unlift" for kind in type(module).__mro__)


@contextmanager
def naming_inputs(model: nn.Module) -> Iterator[None]:
    """Raise SightlineError, with what to do, where a model does not take the images that it is given.

    PyTorch and the model libraries reject a wrong number of channels, a wrong size, another type or another device inside a
    layer, with an error of that layer.
    """
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        advice = None if isinstance(error, SightlineError) else _advice(model, str(error))
        if advice is None:
            raise
        raise SightlineError(advice) from error


def _advice(model: nn.Module, message: str) -> str | None:
    """Return what to say instead of an error; None = it is not about the inputs."""
    first = message.partition("\n")[0]
    if _FIXED.search(message) and any(map(is_exported, model.modules())):
        return (
            f"a part of the model was made by torch.export for other shapes ({first}); export it with dynamic_shapes= that "
            "leave the number of images open, or give the module that it was made from"
        )
    if _OTHER_TYPES.search(first):
        kinds = sorted({f"{each.dtype} on {each.device}".removeprefix("torch.") for each in model.parameters()})
        return (
            f"a layer was given numbers of another type than its own ({first}); the model's parameters are "
            f"{' and '.join(kinds)}: convert the images, images.to(next(model.parameters())), or the model, or use "
            "torch.autocast"
        )
    if _OTHER_CHANNELS.search(first):
        return (
            f"the model does not take images with this number of channels ({first}); convert the images (gray to RGB: "
            "images.expand(-1, 3, -1, -1); RGB to gray: images.mean(1, keepdim=True)), or use a model for these channels"
        )
    if _OTHER_SIZE.search(first):
        return (
            f"the model does not take images of this size ({first}); give images of the size that it was made for "
            "(image_size in a recipe, --size on the command line), or make it for this size (img_size=... in timm)"
        )
    if _INFERENCE.search(first):
        return (
            "the model was made in torch.inference_mode(), and autograd cannot use such weights; make or load it outside of "
            "inference mode"
        )
    return None


def check_open(model: nn.Module, layer: str | None = None) -> None:
    """Reject a model with a part that no hook can enter.

    Args:
        model: any model.
        layer: name of the only layer that matters, "" = the model itself; None = every part matters.

    Raises:
        SightlineError: `torch.jit` or `torch.export` made the part; the message says what to give instead.
    """
    for name, module in model.named_modules():
        if layer is not None and name and not f"{layer}.".startswith(f"{name}."):
            continue
        maker = "torch.jit" if isinstance(module, torch.jit.ScriptModule) else "torch.export" * is_exported(module)
        if maker:
            part = f"part {name!r} of the model" if name else "the model"
            raise SightlineError(
                f"{part} was made by {maker}, and hooks do not act there; give the module that it was made from, or use an "
                "explainer that only calls the model, such as 'saliency', 'occlusion' or 'rise'"
            )
