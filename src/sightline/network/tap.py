"""A model opened at a layer: its activations, their gradients, and the tail run again from them.

The *trunk* is what a model computes up to and including the target layer, the *tail* what follows. Most explanations
are functions of the layer's activations and of the gradient of a class score with respect to them, so only the tail
has to be differentiated: at inference the trunk runs without a graph, and recording starts at the layer.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline._core.exclusive import exclusive
from sightline.errors import SightlineError
from sightline.network.cutting import cut_after
from sightline.network.families import family_layer
from sightline.network.forms import eager, inside
from sightline.network.layers import resolve_layers
from sightline.network.layout import Layer, to_spatial
from sightline.network.logits import logits_of, returned_logits
from sightline.network.modes import in_this_thread

logger = logging.getLogger(__name__)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's own module inside DDP, DataParallel, Fabric's wrapper or `torch.compile`."""
    wrappers = nn.parallel.DistributedDataParallel | nn.DataParallel
    while True:
        wrapped = isinstance(model, wrappers) or type(model).__name__ == "_FabricModule"
        inner = model.module if wrapped else inside(model)
        if not isinstance(inner, nn.Module) or inner is model:
            return model
        model = inner


class StillStatistics:
    """While entered, batch norm's running statistics stay: a recomputation must not count the images again."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._kept: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self._kept = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()

    def __exit__(self, *exception: object) -> None:
        for norm, (momentum, tracked) in zip(self._norms, self._kept):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


@dataclass
class Tapped:
    """What one forward pass through a tapped model gave.

    Attributes:
        output: what the model returned, with a graph that reaches back to the layers at least.
        layers: the target layers.
        raw: what each of them returned, in its own layout; part of the graph of `output`.
        image_size: (H, W) of the model's input.
    """

    output: Any
    layers: list[Layer]
    raw: list[Tensor]
    image_size: tuple[int, int]

    @property
    def logits(self) -> Tensor:
        """A logit for each class (B, K), by the output."""
        return logits_of(self.output)

    @property
    def activations(self) -> list[Tensor]:
        """The activations (B, C, h, w) of each layer."""
        return [to_spatial(layer, raw, self.image_size) for layer, raw in zip(self.layers, self.raw)]

    def gradients(self, scores: Tensor, create_graph: bool = False) -> list[Tensor]:
        """Return the gradient (B, C, h, w) of every image's score with respect to its activations, for each layer.

        Args:
            scores: (B,), one score per image, computed from `output`.
            create_graph: make the gradients differentiable in their turn, as a training loss needs them.

        Raises:
            SightlineError: the scores carry no graph.
        """
        names = [layer.name for layer in self.layers]
        if not scores.requires_grad:
            raise _no_gradient(names[0])
        found = torch.autograd.grad(
            scores.sum(), self.raw, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(names, found):
            if gradient is None:
                raise _no_gradient(name)
        gradients = [gradient for gradient in found if gradient is not None]
        return [to_spatial(layer, g, self.image_size) for layer, g in zip(self.layers, gradients)]


def _no_gradient(name: str) -> SightlineError:
    return SightlineError(
        f"the score does not depend on the target layer {name!r}, or a part between them has no gradient (was it detached? is "
        "it an int8 layer?); choose a layer and a score that belong together, or an explainer without gradients, such as "
        "'scorecam'"
    )


class Tap:
    """A model opened at one or several layers. It holds no hook between calls, and copies and pickles as the model does.

    Args:
        model: any classifier; DDP, Fabric and compiled wrappers are taken off, since hooks do not fire in them.
        layer: the target layer: a name on the unwrapped model, `"penultimate"` for the last convolution but one, the
            module itself, a `Layer` that declares its layout, or a list of these; None chooses by the model's family.

    Raises:
        SightlineError: the layer is unknown, or none was given and the family is unknown (the message lists candidates).

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> tapped = sl.Tap(model)(torch.rand(1, 3, 64, 64))
        >>> tapped.logits.shape, tapped.activations[0].ndim
        (torch.Size([1, 2]), 4)
    """

    def __init__(
        self, model: nn.Module, layer: str | nn.Module | Layer | Sequence[str | nn.Module | Layer] | None = None
    ) -> None:
        self.model = unwrap(model)
        self._layers: list[Layer] | None = None
        with eager(self.model):
            known = layer is not None or family_layer(self.model)
        if known:
            self._layers = resolve_layers(self.model, layer)

    @property
    def layers(self) -> list[Layer]:
        """The target layers. That of a model of no known family is told by the first images, or by a black one before them."""
        if self._layers is None:
            self._layers = resolve_layers(self.model, None)
        return self._layers

    def resolve_default(self, inputs: Tensor) -> None:
        """Let these images tell the default layer, if it is open yet; the first call does it by itself."""
        if self._layers is None:
            self._layers = resolve_layers(self.model, None, inputs)

    def __call__(self, inputs: Tensor, train: bool = False) -> Tapped:
        """One forward pass.

        Args:
            inputs: (B, C, H, W), as the model takes them.
            train: keep the trunk's graph too, and use attention kernels that can be differentiated twice in the tail.
                Without it, the trunk runs without a graph, also where gradients are disabled (no_grad, inference_mode).
        """
        self.resolve_default(inputs)
        raw: list[Tensor | None] = [None] * len(self.layers)
        with ExitStack() as stack:

            def open_at(index: int, tensor: Any, again: bool) -> Tensor:
                name = self.layers[index].name
                if raw[index] is not None and not again:
                    raise SightlineError(
                        f"layer {name!r} runs more than once in a forward pass; choose one that runs once"
                    )
                if not isinstance(tensor, Tensor):
                    raise SightlineError(
                        f"layer {name!r} returned a {type(tensor).__name__}; choose one that returns a tensor"
                    )
                if not tensor.requires_grad:  # no graph behind it: this is where recording starts
                    tensor = tensor.detach().requires_grad_()
                raw[index] = tensor
                torch.set_grad_enabled(True)
                if train and not again:
                    stack.enter_context(exclusive([sdpa_kernel]))  # it sets flags of the whole process
                    stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused kernels have no double backward
                return tensor.clone()  # in-place operations that follow must not reach what we keep

            stack.enter_context(eager(self.model, [layer.name for layer in self.layers]))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(train))
            for index, layer in enumerate(self.layers):
                stack.enter_context(replacing(self.model.get_submodule(layer.name), partial(open_at, index)))
            output = self.model(inputs)
            if not train and torch.is_autocast_enabled(inputs.device.type):
                torch.clear_autocast_cache()  # weights cast without a graph must not serve a training step that follows
        silent = [layer.name for layer, tensor in zip(self.layers, raw) if tensor is None]
        if silent:
            raise SightlineError(
                f"layer {silent[0]!r} did not run in the forward pass; choose one that does (with gradient checkpointing, "
                "a block inside of it)"
            )
        return Tapped(output, self.layers, [t for t in raw if t is not None], (inputs.shape[-2], inputs.shape[-1]))

    def tail(self, inputs: Tensor) -> "Tail":
        """Return the tail alone, to run again from changed activations of these inputs."""
        return Tail(self, inputs)


@contextmanager
def replacing(module: nn.Module, replacement: Callable[[Any, bool], Tensor]) -> Iterator[None]:
    """Let a module return other activations while entered, before hooks of the model keep them and after they change them.

    Args:
        module: a module of the model.
        replacement: returns the activations, given the module's own and whether a hook has changed those of the same run.
    """
    given: Any = None

    def replace(module: nn.Module, args: Any, output: Any, again: bool) -> Any:
        nonlocal given
        if again and first_of(output) is given:
            return None
        given = replacement(first_of(output), again)
        return with_first(output, given)

    first, last = (in_this_thread(partial(replace, again=again)) for again in (False, True))
    with module.register_forward_hook(first, prepend=True), module.register_forward_hook(last):
        yield


def first_of(output: Any) -> Any:
    """Return a layer's activations: its output, or the first part of a tuple, a list or a mapping (such as `ModelOutput`)."""
    if isinstance(output, Mapping):
        return next(iter(output.values()), None)
    return output[0] if isinstance(output, tuple | list) else output


def with_first(output: Any, tensor: Tensor) -> Any:
    """Return a layer's output with other activations.

    A stage may return the same activations in several forms, such as tokens and a feature map; each form is of the other
    activations then.
    """
    first = first_of(output)
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        for key, value in output.items():
            changed[key] = tensor if value is first else _same_form(value, first, tensor)
        return changed
    if isinstance(output, tuple | list):
        values = [tensor, *(_same_form(value, first, tensor) for value in output[1:])]
        return output._make(values) if hasattr(output, "_make") else type(output)(values)  # a named tuple
    return tensor


def _same_form(value: Any, first: Any, tensor: Tensor) -> Any:
    """Return a tensor in the form in which a value shows the memory of another one; the value itself if it shows none of it."""
    if value is first:
        return tensor
    shows = isinstance(value, Tensor) and isinstance(first, Tensor) and value.numel() == first.numel()
    if not shows or value.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
        return value
    if tensor.stride() != first.stride() or value.storage_offset() != first.storage_offset():
        return value
    return tensor.as_strided(value.shape, value.stride(), tensor.storage_offset())


class Tail:
    """What a model computes after the target layer, as a function of that layer's activations.

    Where `torch.fx` can trace the model, the tail is cut out of it, and a call costs the tail alone. Elsewhere each call is
    a full forward pass in which the layer's output is replaced; the reason is logged.

    Args:
        tap: a tap with one layer.
        inputs: (B, C, H, W), as the model takes them; the model should be in eval mode.

    Attributes:
        raw: the layer's own activations for `inputs`, in the layer's layout.
        output: what the model returned for `inputs`.
        is_cut: whether the tail was cut out of the model.
    """

    def __init__(self, tap: Tap, inputs: Tensor) -> None:
        if len(tap.layers) != 1:
            raise SightlineError(f"a tail follows one layer; the tap has {len(tap.layers)}. Make a tap with one layer")
        self._model, self._layer, self._inputs = tap.model, tap.layers[0], inputs
        with torch.no_grad():
            tapped = tap(inputs)
            self.raw = tapped.raw[0].detach()
            self.output = tapped.output.detach() if isinstance(tapped.output, Tensor) else tapped.output
            self._sides: list[Any] = []
            self._cut: nn.Module | None = None
            try:
                trunk, self._cut = cut_after(self._model, self._layer.name)
                self._sides = list(trunk(inputs))
                if not torch.allclose(
                    returned_logits(self(self.raw)), returned_logits(self.output), rtol=1e-3, atol=1e-4
                ):
                    raise RuntimeError("the traced tail gives other logits")
            except Exception as error:  # tracing runs the user's code, which may fail in any way
                self._cut = None
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                logger.info("the tail after %r runs as full forward passes (%s)", self._layer.name, reason)

    @property
    def is_cut(self) -> bool:
        """Whether a call costs the tail alone."""
        return self._cut is not None

    def __call__(self, raw: Tensor, of: Tensor | None = None) -> Any:
        """Return the model's output for N inputs that follows from activations.

        Args:
            raw: (N, ...) activations in the layer's own layout.
            of: (N,) which of the inputs each of them comes from; default: input n for activation n.
        """
        if of is None:
            of = torch.arange(len(raw), device=raw.device)
        if self._cut is not None:
            sides = [side[of] if isinstance(side, Tensor) and side.ndim else side for side in self._sides]
            return self._cut(raw, *sides)

        with eager(self._model, [self._layer.name]):
            layer = self._model.get_submodule(self._layer.name)
            with replacing(layer, lambda tensor, again: raw.clone()):
                return self._model(self._inputs[of])
