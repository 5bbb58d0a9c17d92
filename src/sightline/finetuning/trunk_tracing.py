"""Tracing of a model that is cut before what is trained: which modules to look into, and the layer that is tapped."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from sightline.network.tracing import Tracer


class Whole(nn.Module):
    """A model as a function of its images alone: other arguments have their defaults, and hooks on the whole are left out.

    Args:
        model: the model.
        tapped: the name of a layer whose output is read; None = none.
    """

    def __init__(self, model: nn.Module, tapped: str | None) -> None:
        super().__init__()
        self.model = model
        self.tapped = None if tapped is None else _Body(model.get_submodule(tapped))

    def forward(self, images: Tensor) -> Any:
        """Return the logits, where the model returns an object that holds them among other things; else the model's output."""
        output = self.model.forward(images)
        return output if isinstance(output, fx.Proxy) else getattr(output, "logits", output)


class _Body(nn.Module):
    """What a layer computes before its hooks act, also while its forward is replaced."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.training = False  # what is trained is told by modules in training mode
        self._forward = layer.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(*args, **kwargs)


class WholeTracer(Tracer):
    """Traces into modules that are frozen in part; every other one is called as a whole.

    The tapped layer becomes two nodes: what it computes, and then a call of the layer that passes on what it gets, at which
    hooks on the layer act. Where the model's code decides by a value, such as the number of tokens, images tell the value.

    Args:
        inner: names of the modules to trace into.
        images: (B, C, H, W) as the model takes them.
    """

    def __init__(self, inner: set[str], images: Tensor) -> None:
        super().__init__()
        self._inner = inner
        self._images = images
        self._values: dict[fx.Node, Any] = {}
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is called as a whole."""
        return module_qualified_name not in self._inner

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Decide as the model does for the images."""
        return bool(self.value_of(obj.node))

    def value_of(self, node: fx.Node) -> Any:
        """Return the value of a node for the images."""
        self._running = True
        try:
            with torch.no_grad():
                return self._value(node)
        finally:
            self._running = False

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a module, or make it while a value is told."""
        if self._running:
            return forward(*args, **kwargs)
        tapped = cast(Whole, self.root).tapped
        if tapped is None or m is not tapped.layer:
            return super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        output = (
            m.forward(*args, **kwargs) if name in self._inner else super().call_module(tapped, tapped, args, kwargs)
        )
        return self.create_proxy("call_module", name, (output,), {})

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what stands for a module's attribute in the graph, or the attribute while a value is told."""
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node) -> Any:
        if node not in self._values:
            self._values[node] = self._compute(node)
        return self._values[node]

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._images
        target = cast(Any, node.target)
        args, kwargs = map_arg((node.args, node.kwargs), self._value)
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if node.op == "call_module":
            module, tapped = self.root.get_submodule(target), cast(Whole, self.root).tapped
            return args[0] if tapped is not None and module is tapped.layer else module(*args, **kwargs)
        owner, _, name = target.rpartition(".")
        return getattr(self.root.get_submodule(owner), name)


def inner_modules(model: nn.Module, tapped: str | None) -> set[str]:
    """Return the names of the modules to trace into.

    They are trained in part, have a part that is tapped and another that is frozen, or wrap a single trained layer, such as
    the classifier behind its pooling.
    """
    inner = set()
    for name, module in model.named_modules():
        flags = {parameter.requires_grad for parameter in module.parameters()}
        around = tapped is not None and tapped.startswith(f"{name}." if name else "")
        holders = [part for part in module.modules() if part._parameters]
        wraps = len(holders) == 1 and holders[0] is not module and not module.training
        if len(flags) == 2 or (around and flags != {True}) or (flags == {True} and wraps and name != tapped):
            inner.add(name)
    return inner
