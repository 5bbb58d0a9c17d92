"""A device that is not there: tensors that hold CPU data, say that they are on another device, and check every operation.

CUDA rejects an operation whose arguments are on different devices, and stops the host where it reads a value of the device. A
test without a GPU sees neither. `stand_in()` shows both: an operation that CUDA would reject raises `DeviceMismatch`, and each
read of a device's value is counted with the line of sightline that caused it.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
DEVICE = torch.device("lazy", 0)  # a device type that this build of PyTorch knows and no machine has

INDEXING = {
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default, aten._unsafe_index.Tensor
}  # fmt: skip
# The host waits for what these return: a value, or the shape of a result.
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.is_nonzero.default,
    aten.equal.default, aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor, aten.bincount.default,
}  # fmt: skip


class DeviceMismatch(RuntimeError):
    """An operation that CUDA would reject."""


@dataclass
class Log:
    """What happened on the stand-in device.

    Attributes:
        waits: line of sightline -> how often the host waited for the device there.
    """

    waits: Counter[str] = field(default_factory=Counter)

    def wait(self, operation: str) -> None:
        """Note that the host waits."""
        self.waits[f"{_place()} {operation}"] += 1


_log = Log()


class StandIn(torch.Tensor):
    """A tensor that says it is on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "StandIn":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, requires_grad=False, device=DEVICE,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"StandIn({self.held})"

    def tolist(self) -> Any:
        """The values, for which the host waits."""
        _log.wait("tolist")
        return self.held.tolist()

    def numpy(self, *args: Any, **options: Any) -> Any:
        """CUDA tensors have no array."""
        raise DeviceMismatch(f"numpy() of a tensor on the device at {_place()}")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def to_device(value: Any) -> Any:
    """A tensor, a module (changed in place) or a tree of tensors on the device."""
    if isinstance(value, nn.Module):
        for parameter in value.parameters():
            moved = nn.Parameter(StandIn(parameter.detach().clone()), requires_grad=parameter.requires_grad)
            torch.utils.swap_tensors(
                parameter, moved
            )  # the same parameter, for whoever holds it, as `module.to` leaves it
        for module in value.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else StandIn(buffer.detach().clone())
        return value
    return tree_map(lambda x: StandIn(x.detach().clone()) if isinstance(x, Tensor) else x, value)


def to_host(value: Tensor) -> Tensor:
    """The values of a tensor, without counting."""
    return value.detach().held if isinstance(value, StandIn) else value


@contextmanager
def stand_in() -> Iterator[Log]:
    """Make the device exist while entered; yields the log."""
    global _log
    _log = Log()
    autocast, enabled, dtype = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

    def make_autocast(device_type: str, *args: Any, **options: Any) -> Any:
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, *args, **options)

    def known(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: function(*("cpu" if arg == DEVICE.type else arg for arg in args))

    with ExitStack() as stack:
        torch._C._ensureCUDADeviceGuardSet()
        lifting = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifting)
        for target, name, new in (
            (torch.cuda, "_lazy_init", lambda: None),
            (torch, "autocast", make_autocast),
            (torch, "is_autocast_enabled", known(enabled)),
            (torch, "get_autocast_dtype", known(dtype)),
            (torch, "lazy", torch.cpu),
            (torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext()),  # takes no StandIn
        ):
            stack.enter_context(mock.patch.object(target, name, new, create=True))
        stack.enter_context(_Mode())
        yield _log


def _place() -> str:
    frames = [f for f in reversed(traceback.extract_stack()) if "stand_in" not in f.filename]
    ours = next((f for f in frames if "/src/sightline/" in f.filename), None)
    frame = ours or next(f for f in frames if "_python_dispatch" not in f.filename)
    return f"{frame.filename.rpartition('/src/sightline/')[2]}:{frame.lineno}"


def _held(value: Any) -> Any:
    return tree_map(lambda t: t.held if isinstance(t, StandIn) else t, value)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there, here = (
        [t for t in tensors if isinstance(t, StandIn)],
        [t for t in tensors if not isinstance(t, StandIn)],
    )
    device = kwargs.get("device")
    if func in (aten._to_copy.default, aten.copy_.default):
        return _copy(func, args, kwargs, there)
    if not tensors or device is not None:  # made on a device
        target = torch.device(device) if device is not None else torch.device("cpu")
        draw = kwargs.get("generator")
        if draw is not None and draw.device.type != target.type:
            raise DeviceMismatch(f"{func}: a generator of {draw.device} for {target} at {_place()}")
        rest = {name: value for name, value in kwargs.items() if name != "device"}
        return _wrapped(func, args, func(*_held(args), **_held(rest)), target.type == DEVICE.type)
    if there and func in WAITING:
        _log.wait(str(func))
    _check(func, args, kwargs, there, here)
    with torch.no_grad():
        result = func(*_held(args), **_held(kwargs))
    return result if func is aten._local_scalar_dense.default else _wrapped(func, args, result, bool(there))


def _copy(func: Any, args: Any, kwargs: Any, there: list[Tensor]) -> Any:
    if func is aten.copy_.default:
        if isinstance(args[1], StandIn) and not isinstance(args[0], StandIn):
            _log.wait("copy to the host")
        _held(args[0]).copy_(_held(args[1]))
        return args[0]
    device = kwargs.get("device")
    target = torch.device(device) if device is not None else DEVICE if there else torch.device("cpu")
    if there and target.type != DEVICE.type:
        _log.wait("copy to the host")
    result = func(*_held(args), **{name: value for name, value in kwargs.items() if name != "device"})
    return StandIn(result) if target.type == DEVICE.type else result


def _check(func: Any, args: Any, kwargs: Any, there: list[Tensor], here: list[Tensor]) -> None:
    """Raise if CUDA would reject the arguments."""
    draw = kwargs.get("generator") or next((a for a in args if isinstance(a, torch.Generator)), None)
    if draw is not None and there and draw.device.type == "cpu":
        raise DeviceMismatch(f"{func}: a generator of the CPU at {_place()}")
    if func in INDEXING:
        indices = [i for i in args[1] if i is not None]
        if not isinstance(args[0], StandIn):
            if any(isinstance(i, StandIn) for i in indices):
                raise DeviceMismatch(f"{func}: a tensor of the CPU with an index of the device at {_place()}")
        else:
            if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
                _log.wait(str(func))
            if len(args) > 2 and isinstance(args[2], Tensor) and not isinstance(args[2], StandIn) and args[2].ndim:
                raise DeviceMismatch(f"{func}: values of the CPU at {_place()}")
        return
    wide = [t for t in here if t.ndim > 0]
    joined = str(func).startswith(("aten.cat", "aten.stack", "aten.gather", "aten.scatter"))
    if there and (wide or (here and joined)):
        shapes = [tuple(t.shape) for t in here]
        raise DeviceMismatch(f"{func}: tensors of the device and of the CPU {shapes} at {_place()}")


def _wrapped(func: Any, args: Any, result: Any, on_device: bool) -> Any:
    if not on_device:
        return result
    written = [a for a, s in zip(args, func._schema.arguments) if s.alias_info is not None and s.alias_info.is_write]
    if written and isinstance(written[0], StandIn) and result is written[0].held and written[0].size() == result.size():
        return written[0]
    return tree_map(lambda t: StandIn(t) if isinstance(t, Tensor) else t, result)
