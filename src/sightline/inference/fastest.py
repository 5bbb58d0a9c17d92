"""The fastest exact form of a model on this machine: order of its input in memory, folded batch norms, and images in a call.

These change the time and not the answer. Convolutions often take half the time on an input in channels-last order, batch norms
can be part of them, and large batches lose on a CPU what they wait for memory. Which form is the fastest depends on the model,
the image size and the machine, so a short measurement finds it. The measurement is kept for the process, by the model's
structure, the input and the device. `Explainer`, `Scorer` and the attacks enter `fastest`; nothing else has to know of forms,
nor of `inference.precision`, which `fastest` enters too.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sightline._core.internal_batches import FASTEST_ROWS, default_rows
from sightline.inference.folding import Pair, fold, foldable_pairs, hooks_allow
from sightline.inference.precision import asked_precision, precision_asked
from sightline.network.forms import compiled_modules, is_exported
from sightline.network.modes import in_this_thread, is_own_hook

SMALLEST = 64 * 64  # pixels of an image: below, a pass takes too little time to be worth a measurement
TOLERANCE = 1e-5  # of answers, relative to the largest: a form that differs by more is not used
GAIN = 0.95  # of the plain form's time: a form that takes more is not used, since noise may explain it
ROUNDS = 3


@dataclass(frozen=True)
class Form:
    """How a model runs.

    Args:
        channels_last: whether its input is in channels-last order in memory; its weights stay unchanged.
        rows: images in one call; None = as many as `InternalBatches` takes by default.
        folded: names of convolutions, each with the batch norm that becomes part of it (see `fold`). The model runs unchanged
            in calls that begin with gradients enabled, and while it holds hooks that could tell the difference.
    """

    channels_last: bool = False
    rows: int | None = None
    folded: tuple[Pair, ...] = ()


PLAIN = Form()
_measured: dict[Any, Form] = {}
_pinned: ContextVar[Form | None] = ContextVar("pinned", default=None)


@contextmanager
def pinned(form: Form) -> Iterator[None]:
    """Let models run in this form, while entered, and measure nothing: `pinned(PLAIN)` gives the same bits on every run."""
    token = _pinned.set(form)
    try:
        yield
    finally:
        _pinned.reset(token)


@contextmanager
def fastest(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Run inputs of this size through the model in its fastest form while entered, in the precision that is asked for.

    A form is looked for once the work is large enough: where `InternalBatches` is asked for as many pixels as 32 images of
    224 x 224 have. Set `SIGHTLINE_FORM=plain` in the environment to keep the plain form. A part made by `torch.jit`,
    `torch.export` or `torch.compile` keeps it too.

    Args:
        model: an unwrapped model in eval mode, which belongs to this thread (see `evaluating`).
        inputs: (B, C, H, W) float, of the size that the model takes.
    """
    with asked_precision(model, inputs, lambda: _key(model, inputs)):
        if not _may_change(model, inputs):
            yield
            return
        running = _Running(model, inputs)
        token = FASTEST_ROWS.set(running.rows)
        try:
            with model.register_forward_pre_hook(in_this_thread(running.lay_out)):
                yield
        finally:
            FASTEST_ROWS.reset(token)
            running.unfold()


class _Running:
    """A model while `fastest` is entered."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs
        self.key = _key(model, inputs)

    @property
    def form(self) -> Form:
        return _pinned.get() or _measured.get(self.key, PLAIN)

    def rows(self, images: Tensor, many: bool) -> int | None:
        """Return how many such images one call takes; None where they are not what the model takes, or nothing is measured."""
        if images.shape[-2:] != self.inputs.shape[-2:]:
            return None
        if many and _pinned.get() is None and self.key not in _measured:
            _measured[self.key] = PLAIN  # what the measurement itself runs in
            _measured[self.key] = measure(self.model, self.inputs)
        if (many or _pinned.get()) and self.form.folded and "forward" not in vars(self.model):
            self.model.forward = _Folded(self.model, self.form.folded)
        return self.form.rows

    def unfold(self) -> None:
        """Let the model run its own `forward` again."""
        if isinstance(vars(self.model).get("forward"), _Folded):
            del self.model.forward

    def lay_out(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the model's arguments with the images in the order of the form."""
        if not self.form.channels_last or not args or not isinstance(args[0], Tensor) or args[0].ndim != 4:
            return None
        return args[0].contiguous(memory_format=torch.channels_last), *args[1:]


class _Folded:
    """The `forward` of a model that runs a copy with folded batch norms, where nothing can tell the two apart."""

    def __init__(self, model: nn.Module, pairs: tuple[Pair, ...]) -> None:
        self.model, self.pairs, self.copy, self.thread = model, pairs, fold(model, pairs), threading.get_ident()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mine = threading.get_ident() == self.thread and not torch.is_grad_enabled()
        same = mine and hooks_allow(self.model, self.pairs, is_own_hook)
        return type(self.model).forward(self.copy if same else self.model, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return the `forward` of the model's copy: what is copied with a model must not run the model itself."""
        made = memo[id(self.model)]
        return MethodType(type(made).forward, made)


def measure(model: nn.Module, inputs: Tensor) -> Form:
    """Return the fastest of the exact forms, by a few calls of the model on copies of these inputs.

    The two orders in memory are timed in turn on few images, then more images in the faster order, then folded batch norms. No
    call takes more images than one without a measurement.
    """
    most, on_cpu = default_rows(inputs), inputs.device.type == "cpu"
    few, many = (max(1, most // 8), max(1, most // 2)) if on_cpu else (max(1, most // 4), most)
    with torch.no_grad(), torch.random.fork_rng([]):
        plain = inputs.detach()[torch.arange(few, device=inputs.device) % len(inputs)].contiguous()
        try:
            orders = {False: plain, True: plain.contiguous(memory_format=torch.channels_last)}
            answers = {order: model(images.clone()) for order, images in orders.items()}
            if not _agree(*answers.values()):
                del orders[True]
        except Exception:  # the user's code, which may reject another order
            orders = {False: plain}
        times = {order: [_seconds(model, images)] for order, images in orders.items()}
        for _ in range(ROUNDS - 1):
            for order, images in orders.items():
                times[order].append(_seconds(model, images))
        best = {order: min(some) for order, some in times.items()}
        order = True in best and best[True] < GAIN * best[False]
        images = orders[order]
        try:
            more = images.repeat(-(-many // len(images)), 1, 1, 1)[:many]
            more = more.contiguous(memory_format=torch.channels_last if order else torch.contiguous_format)
            slower = min(_seconds(model, more) for _ in range(2)) / many * GAIN > best[order] / len(images)
        except torch.OutOfMemoryError:
            slower = True
        form = Form(order, len(images) if slower else many)
        return replace(form, folded=_worth_folding(model, images))


def _worth_folding(model: nn.Module, images: Tensor) -> tuple[Pair, ...]:
    """Return the batch norms to fold: all that can be, or none if this changes the answer or gains too little."""
    if "forward" in vars(model):
        return ()
    try:
        pairs = foldable_pairs(model, images[:1], TOLERANCE)
        if not pairs or not _agree(model(images.clone()), (copy := fold(model, pairs))(images.clone())):
            return ()
    except Exception:  # the user's code, which may reject its copy
        return ()
    times = [(_seconds(model, images), _seconds(copy, images)) for _ in range(ROUNDS)]
    plain, folded = (min(some) for some in zip(*times))
    return pairs if folded < GAIN * plain else ()


def _seconds(model: nn.Module, images: Tensor) -> float:
    given = images.clone()  # the model may work in place
    _wait(images)
    start = time.perf_counter()
    model(given)
    _wait(images)
    return time.perf_counter() - start


def _wait(images: Tensor) -> None:
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


def _agree(one: Any, other: Any) -> bool:
    """Return whether two answers are equal up to rounding."""
    pairs = list(zip(tree_leaves(one), tree_leaves(other)))
    return all(_close(a, b) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point())


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    kind = torch.bfloat16 if precision_asked() == "bf16" else one.dtype
    allowed = max(TOLERANCE, 8 * torch.finfo(kind).eps)
    return bool((one - other).abs().max() <= allowed * one.abs().max()) if one.numel() else True


def _may_change(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether the model may run in another form, and is large enough for it."""
    if os.environ.get("SIGHTLINE_FORM") == "plain" or inputs.ndim != 4 or not inputs.is_floating_point():
        return False
    if inputs.shape[-2] * inputs.shape[-1] < SMALLEST and _pinned.get() is None:
        return False
    fixed = any(isinstance(m, torch.jit.ScriptModule) or is_exported(m) for m in model.modules())
    return not fixed and not compiled_modules(model)


def _key(model: nn.Module, inputs: Tensor) -> Any:
    """Return what a measurement holds for: the model's structure, the input, the device and how it is used."""
    weights = tuple((tuple(p.shape), p.stride(), p.dtype) for p in model.parameters())
    device = inputs.device
    modes = torch.get_num_threads(), torch.is_autocast_enabled(device.type), precision_asked()
    return type(model), len(list(model.modules())), weights, tuple(inputs.shape[1:]), inputs.dtype, device, modes
