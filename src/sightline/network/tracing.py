"""Tracing by torch.fx while other threads run, and graphs as modules."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx, nn

from sightline._core.exclusive import exclusive


@contextmanager
def _inlining() -> Iterator[None]:
    """Let compiled functions run uncompiled; torch.fx cannot call them otherwise, in other threads too."""
    dynamo: Any = sys.modules.get("torch._dynamo.config")  # what is compiled has imported it
    if dynamo is None:
        yield
        return
    before = dynamo.error_on_nested_fx_trace
    dynamo.error_on_nested_fx_trace = False
    try:
        yield
    finally:
        dynamo.error_on_nested_fx_trace = before


class Tracer(fx.Tracer):
    """A tracer that leaves other threads alone.

    While torch.fx traces, `nn.Module.__call__` is patched for the whole process. One thread at a time may trace. The calls that
    other threads make meanwhile run as if nothing was patched.
    """

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Return the graph of a module."""
        with exclusive([fx.Tracer]), _inlining():
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a module, or make the call if it is another thread's."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what stands for a module's attribute in the graph, or the attribute if another thread asks."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class Interpreted(fx.GraphModule):
    """A graph with the modules that it calls, run node by node.

    What `fx.GraphModule` generates instead is source code, which Python keeps in memory for the rest of the process.
    """

    def recompile(self) -> Any:
        """Generate nothing."""

    def forward(self, *inputs: Any) -> Any:
        """Return what the graph computes."""
        return fx.Interpreter(self).run(*inputs)
