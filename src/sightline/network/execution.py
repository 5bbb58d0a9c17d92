"""What a model runs: its modules in the order in which they finish, with the shapes that they return."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.seeding import seeded
from sightline.errors import SightlineError
from sightline.network.forms import eager
from sightline.network.modes import evaluating, in_this_thread

Shape = tuple[int, ...]

# Sides in pixels of the images that models without a stated size are tried on, likeliest first.
SIDES = (224, 32, 28, 64, 48, 96, 128, 112, 160, 192, 256, 299, 320, 384, 448, 512)


@dataclass(frozen=True)
class Call:
    """One run of one module.

    Attributes:
        name: of the module, as in `model.named_modules()`.
        module: which ran.
        taken: shape of the first tensor that it was called with; () without any.
        returned: shapes of the tensors that it returned.
        alone: whether it returned one tensor, and that not in a tuple, a list or a mapping.
        tensor: the first of them; None without any.
        node: its autograd node when it was returned, before what follows changes it in place; None without a graph.
    """

    name: str
    module: nn.Module
    taken: Shape
    returned: tuple[Shape, ...]
    alone: bool
    tensor: Tensor | None
    node: Any


@dataclass(frozen=True)
class Record:
    """One forward pass.

    Attributes:
        calls: in the order in which they finished; the model itself comes last, under the name "".
        image: (1, C, H, W), the shape of what it ran on.
        output: the main tensor that the model returned; None without any.
    """

    calls: list[Call]
    image: Shape
    output: Tensor | None


def reached(node: Any) -> set[Any]:
    """Return an autograd node and those that it depends on."""
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending.extend(following for following, _ in node.next_functions)
    return seen


def record(model: nn.Module, inputs: Tensor) -> Record:
    """Run a model once, in eval mode, and return what ran; modules, random numbers and gradients do not change.

    Args:
        model: an unwrapped model.
        inputs: (B, C, H, W), as the model takes them; the first image is enough, and is all that is used.
    """
    calls: list[Call] = []
    with eager(model):
        modules = dict(model.named_modules())
    with ExitStack() as hooks:
        for name, module in modules.items():
            if isinstance(module, torch.jit.ScriptModule):  # hooks do not act there
                continue

            def note(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                taken = next(iter(_tensors([*args, *kwargs.values()])), None)
                returned = _tensors(output)
                tensor = returned[0] if returned else None
                node = None if tensor is None else tensor.grad_fn
                shapes, alone = tuple(map(_shape, returned)), isinstance(output, Tensor)
                calls.append(Call(name, module, _shape(taken), shapes, alone, tensor, node))

            hooks.enter_context(module.register_forward_hook(in_this_thread(note), with_kwargs=True))
        with evaluating(model), seeded(inputs.device, "record"), torch.inference_mode(False), torch.enable_grad():
            image = inputs[:1].detach().clone().requires_grad_(inputs.is_floating_point())
            output = main_output(model(image))
    return Record(calls, _shape(image), output)


def record_blank(model: nn.Module) -> Record:
    """Run a model once on a black image of the size that it states, or of the first usual size that it takes.

    Raises:
        SightlineError: it takes none of them.
    """
    parameter = next(model.parameters(), torch.empty(0))
    refusals = []
    for shape in dict.fromkeys(likely_shapes(model)):
        try:
            return record(model, torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
        except Exception as error:  # the user's code rejects an image in its own way
            refusals.append(f"{type(error).__name__}: {error}".partition("\n")[0])
    raise SightlineError(
        f"{type(model).__name__} takes no blank image of the usual sizes ({refusals[0]}); give layer=, the name of a layer"
    )


def main_output(output: Any) -> Tensor | None:
    """Return the logits or the dense prediction in what a model returned; None where there is no tensor."""
    if isinstance(output, Mapping):
        for key in ("logits", "out"):
            if isinstance(output.get(key), Tensor):
                return output[key]
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else next(iter(_tensors(output)), None)


def stated_shapes(model: nn.Module) -> Iterator[Shape]:
    """Yield shapes (C, H, W) of images that a model, or a known one inside, says that it takes."""
    modules = list(model.modules())
    for module in modules:
        if declared := (getattr(module, "pretrained_cfg", None) or {}).get("input_size"):
            yield tuple(declared)
    # torchvision's transformers and Hugging Face's configurations state a side.
    for holder in [holder for module in modules for holder in (module, getattr(module, "config", None))]:
        if isinstance(side := getattr(holder, "image_size", None), int):
            yield from ((channels, side, side) for channels in likely_channels(model))


def likely_shapes(model: nn.Module) -> Iterator[Shape]:
    """Yield shapes (C, H, W) of images that a model may take, likeliest first."""
    yield from stated_shapes(model)
    yield from ((channels, side, side) for side in SIDES for channels in likely_channels(model))


def likely_channels(model: nn.Module) -> list[int]:
    """Return how many channels an image may have, likeliest first."""
    first = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)][:1]
    return list(dict.fromkeys([*first, 3, 1]))


def _tensors(value: Any) -> list[Tensor]:
    """Return the tensors in what a module took or returned, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, tuple | list) else []


def _shape(tensor: Tensor | None) -> Shape:
    return () if tensor is None else tuple(tensor.shape)
