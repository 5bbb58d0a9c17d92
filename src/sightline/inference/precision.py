"""The number format of the passes through a model: its own, or bfloat16 where the caller asks for it by name.

In `"bf16"`, the model's forward pass runs under autocast, and the backward pass through it has the same formats. What the model
returns becomes float32 again: scores, softmax, sums and normalization have all their digits. `inference.fastest` enters
`asked_precision`; what bfloat16 spoils enters `running_in("fp32")` around its passes.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from sightline._core.checks import check_choice
from sightline.errors import SightlineError
from sightline.network.forms import is_exported
from sightline.network.modes import in_this_thread

Precision = Literal["fp32", "bf16"]

_asked: ContextVar[Precision] = ContextVar("precision", default="fp32")
_tried: set[Any] = set()  # models, inputs and devices that have run in bfloat16


@contextmanager
def running_in(precision: Precision) -> Iterator[None]:
    """Let explainers, metrics and attacks run their models in this precision while entered.

    Args:
        precision: "fp32" = as the model and the surrounding autocast have it; "bf16" = bfloat16 autocast.
    """
    check_choice(Precision, precision=precision)
    token = _asked.set(precision)
    try:
        yield
    finally:
        _asked.reset(token)


def precision_asked() -> Precision:
    """Return the precision that `running_in` asks for here."""
    return _asked.get()


@contextmanager
def asked_precision(model: nn.Module, inputs: Tensor, key_of: Callable[[], Any]) -> Iterator[None]:
    """Run every call of the model in the precision that is asked for, while entered.

    Args:
        model: an unwrapped model in eval mode, which belongs to this thread (see `evaluating`).
        inputs: (B, C, H, W) float, of the size that the model takes.
        key_of: returns what a trial of the model holds for; the first one with this key runs one image.

    Raises:
        SightlineError: "bf16" is asked for, and the device or the model cannot.
    """
    if precision_asked() == "fp32":
        yield
        return
    _check_device(inputs.device)
    _check_model(model)
    passes = _Passes(inputs.device.type)
    before = model.register_forward_pre_hook(in_this_thread(passes.begin))
    after = model.register_forward_hook(in_this_thread(passes.end), always_call=True)
    try:
        with before, after:
            if (key := key_of()) not in _tried:
                _try(model, inputs)
                _tried.add(key)
            yield
    finally:
        passes.end_all()


def bf16_where_asked(device: torch.device) -> AbstractContextManager[Any]:
    """Return autocast to bfloat16 where it is asked for: for calls of a compiled model, in which no hook acts."""
    if precision_asked() == "fp32":
        return nullcontext()
    _check_device(device)
    return torch.autocast(device.type, torch.bfloat16)


class _Passes:
    """Calls of a model, each in its own autocast."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._entered: list[AbstractContextManager[Any]] = []

    def begin(self, module: nn.Module, args: Any) -> None:
        """Enter autocast before a call."""
        runs = torch.is_autocast_enabled(self._device_type)
        context: AbstractContextManager[Any] = nullcontext()
        if precision_asked() == "bf16" and not runs:
            context = torch.autocast(self._device_type, torch.bfloat16)
        context.__enter__()
        self._entered.append(context)

    def end(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Leave autocast after a call, which may have failed, and return its output in float32."""
        if self._entered:  # else another hook failed before this one began
            self._entered.pop().__exit__(None, None, None)
        return tree_map(_widened, output)

    def end_all(self) -> None:
        """Leave what an interruption left open."""
        while self._entered:
            self._entered.pop().__exit__(None, None, None)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _check_device(device: torch.device) -> None:
    """Raise if the device has no bfloat16 autocast."""
    known = torch.amp.is_autocast_available(device.type)
    if known and device.type == "cuda":
        known = torch.cuda.is_bf16_supported(including_emulation=False)
    elif known:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # autocast turns itself off with a warning where it cannot
            with torch.autocast(device.type, torch.bfloat16):
                known = torch.is_autocast_enabled(device.type)
    if not known:
        raise SightlineError(f"precision is 'bf16', which {device} does not have; use 'fp32'")


def _check_model(model: nn.Module) -> None:
    """Raise if autocast does not act in the model."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or is_exported(module):
            raise SightlineError(
                f"precision is 'bf16', and {f'part {name!r} of ' if name else ''}the model was made by torch.jit or "
                "torch.export, whose number formats are fixed; give the module that it was made from, or use 'fp32'"
            )
    if any(parameter.dtype == torch.float64 for parameter in model.parameters()):
        raise SightlineError("precision is 'bf16', and the model's weights are float64; call model.float() first")


def _try(model: nn.Module, inputs: Tensor) -> None:
    """Raise if the model runs, and fails in bfloat16."""
    with torch.no_grad(), torch.random.fork_rng([]):
        try:
            model(inputs[:1].clone())
        except Exception as error:  # the user's code, which may fail in any way
            with running_in("fp32"):
                model(inputs[:1].clone())
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise SightlineError(f"precision is 'bf16', in which the model fails ({reason}); use 'fp32'") from error
