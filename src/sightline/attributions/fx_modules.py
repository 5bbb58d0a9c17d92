"""A copy of a model in which every operation that a backward rule must see is its own module.

Captum changes the gradient of modules by hooks. It cannot see a functional ReLU, cannot tell two uses of one module apart, and
passes over an operation without a rule as if the plain gradient were its rule. So the methods with rules get a copy, made by
`torch.fx`, in which functional operations are modules, modules that are used twice are two, nothing works in place, and
nothing is left without a rule; a model without such a rule is rejected by name.
"""

import copy
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sightline.errors import NotDefinedError
from sightline.network.forms import check_open
from sightline.network.targets import Score
from sightline.network.tracing import Interpreted, Tracer

AFFINE = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.Upsample, nn.ZeroPad2d, nn.PixelShuffle,
)  # fmt: skip
PASSED_ON = (nn.Identity, nn.Dropout, nn.Dropout2d)  # nothing happens there in eval mode

# Functions and methods by name, as torch, torch.nn.functional, operator and Tensor share them.
MOVING = {
    "_assert", "cat", "chunk", "clone", "concat", "contiguous", "expand", "flatten", "getitem", "permute", "reshape", "split",
    "squeeze", "t", "to", "transpose", "unflatten", "unsqueeze", "view",
    "dropout",  # in eval mode
}  # fmt: skip
LINEAR = MOVING | {
    "adaptive_avg_pool2d", "add", "add_", "avg_pool2d", "batch_norm", "conv2d", "iadd", "interpolate", "isub", "linear",
    "mean", "neg", "pad", "sub", "sum",
}  # fmt: skip
SCALING = {"div", "div_", "imul", "itruediv", "mul", "mul_", "truediv"}  # linear where the other factor is a constant

AS_MODULES: Mapping[str, type[nn.Module]] = {
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "avg_pool2d": nn.AvgPool2d,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "max_pool2d": nn.MaxPool2d,
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class Rules:
    """What a method has rules for.

    Attributes:
        method: its name in messages.
        exact: types of modules; their subclasses may do something else.
        kinds: types of modules, subclasses included.
        functions: names of functions and methods on tensors.
        addition: a module that adds two tensors, where the method has a rule for it.
        windowed: whether max pooling is to be a maximum over windows that do not overlap.
    """

    method: str
    exact: frozenset[type[nn.Module]] = frozenset()
    kinds: tuple[type[nn.Module], ...] = ()
    functions: Set[str] = frozenset(MOVING)
    addition: type[nn.Module] | None = None
    windowed: bool = False


class ScoreModule(nn.Module):
    """A model and a score as one module: from N inputs, and which images they are made from, to N scalars."""

    def __init__(self, network: nn.Module, score: Score) -> None:
        super().__init__()
        self.network = network
        self.score = score

    def forward(self, inputs: Tensor, of: Tensor) -> Tensor:
        """Return the scores (N,)."""
        return self.score(self.network(inputs), of)


class WindowMax(nn.Module):
    """Max pooling as a maximum over windows that share no value: Captum's rule for it is right where windows do not overlap."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.ceil = pool.ceil_mode
        self.kernel, self.stride, self.padding, self.dilation = (
            (option, option) if isinstance(option, int) else tuple(option)
            for option in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        self.maximum = nn.MaxPool2d((1, self.kernel[0] * self.kernel[1]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the max pooling of inputs (N, C, h, w)."""
        pooled = F.max_pool2d(inputs.detach(), self.kernel, self.stride, self.padding, self.dilation, self.ceil).shape[
            -2:
        ]
        after = [
            (count - 1) * stride + dilation * (kernel - 1) + 1 - side - padding
            for count, stride, dilation, kernel, side, padding in zip(
                pooled, self.stride, self.dilation, self.kernel, inputs.shape[-2:], self.padding
            )
        ]
        border = (self.padding[1], after[1], self.padding[0], after[0])
        padded = F.pad(inputs, border, value=torch.finfo(inputs.dtype).min)
        windows = F.unfold(padded, self.kernel, self.dilation, stride=self.stride)  # (N, C k, places)
        windows = windows.unflatten(1, (inputs.shape[1], -1)).transpose(2, 3)  # (N, C, places, k)
        return self.maximum(windows).reshape(*inputs.shape[:2], *pooled)


def explicit(model: nn.Module, rules: Rules) -> nn.Module:
    """Copy a model in eval mode, with one module for every operation that needs a rule; the copy shares nothing with it.

    Raises:
        NotDefinedError: the method has no rule for an operation, or the model cannot be traced; nothing was run.
    """
    check_open(model)
    root = copy.deepcopy(model).requires_grad_(False)
    try:
        graph = _Tracer().trace(root)
    except Exception as error:  # tracing runs the user's code, which may fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise NotDefinedError(
            f"{rules.method} has to see every operation of the model, and torch.fx cannot trace {type(model).__name__} "
            f"({reason}); use an explainer that needs no trace, such as 'saliency'"
        ) from error
    modules = dict(root.named_modules())
    used: set[str] = set()
    for node in list(graph.nodes):
        if node.op == "call_module":
            module = modules[node.target]
            if isinstance(module, PASSED_ON):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
            elif type(module) is nn.Flatten:
                _call_function(graph, node, torch.flatten, module.start_dim, module.end_dim)
            elif node.target in used:
                _call_module(root, graph, node, copy.deepcopy(module))
            used.add(node.target)
        elif (name := _name(node)) in AS_MODULES and AS_MODULES[name] in rules.exact | set(rules.kinds):
            options = {k: v for k, v in node.kwargs.items() if k not in ("inplace", "return_indices", "input")}
            _call_module(root, graph, node, AS_MODULES[name](*node.args[1:5], **options))
        elif rules.addition and name in ("add", "add_", "iadd") and not node.kwargs and all(map(_varies, node.args)):
            _call_module(root, graph, node, rules.addition(), *node.args)
    network = Interpreted(root, graph)
    network.graph.eliminate_dead_code()
    _refuse(network, rules)
    _separate(network, rules)
    for module in network.modules():
        module._backward_hooks.clear()  # the user's would see gradients by other rules, and Captum passes over modules with any
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return network.eval()


class _Tracer(Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        linear = isinstance(m, AFFINE) and not list(m.children())  # such as a convolution that pads in its own way
        return linear or super().is_leaf_module(m, module_qualified_name)


def _name(node: fx.Node) -> str:
    """Return the name of a function or method."""
    if node.op == "call_method":
        return str(node.target)
    return str(getattr(node.target, "__name__", node.target)) if node.op == "call_function" else ""


def _varies(value: Any) -> bool:
    """Whether an argument follows from the input."""
    return isinstance(value, fx.Node) and value.op != "get_attr"


def _call_module(root: nn.Module, graph: fx.Graph, node: fx.Node, module: nn.Module, *args: Any) -> None:
    name = f"_explicit_{node.name}"
    root.add_module(name, module)
    with graph.inserting_before(node):
        new = graph.call_module(name, args or (node.args[0] if node.args else node.kwargs["input"],))
    new.meta = {**node.meta, "was": _describe(node)}
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _call_function(graph: fx.Graph, node: fx.Node, function: Any, *args: Any) -> None:
    with graph.inserting_before(node):
        new = graph.call_function(function, (node.args[0], *args))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _describe(node: fx.Node) -> str:
    """Where in the user's model an operation comes from."""
    if "was" in node.meta:
        return str(node.meta["was"])
    if node.op == "call_module":
        return f"module {node.target!r}"
    stack = list(node.meta.get("nn_module_stack", {}).values())
    where = f"in the forward of module {stack[-1][0]!r}" if stack and stack[-1][0] else "in the model's forward"
    return f"{_name(node)}() {where}"


def _refuse(network: fx.GraphModule, rules: Rules) -> None:
    """Raise for the first operation without a rule."""
    shapes: set[fx.Node] = set()  # sizes and what is computed from them: no gradient passes there
    for node in network.graph.nodes:
        name = _name(node)
        is_shape = name in ("dim", "size") or (
            name == "getattr" and node.args[1] in ("device", "dtype", "ndim", "shape")
        )
        if is_shape or (name and node.all_input_nodes and shapes.issuperset(node.all_input_nodes)):
            shapes.add(node)
            continue
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            if type(module) not in rules.exact and not isinstance(module, rules.kinds):
                raise NotDefinedError(
                    f"{rules.method} is not defined for this model: it has no rule for {_describe(node)} "
                    f"({type(module).__name__}); use an explainer without rules, such as 'saliency'"
                )
        elif name and not (name in rules.functions or (name in SCALING & _scaling(rules) and _scales(node))):
            raise NotDefinedError(
                f"{rules.method} is not defined for this model: it has no rule for {_describe(node)}; use an explainer "
                "without rules, such as 'saliency'"
            )


def _separate(network: fx.GraphModule, rules: Rules) -> None:
    """Give every module with a rule its own input.

    Captum hooks the tensors that modules share. Where one module's output is another's input, the first would see a gradient
    that the second's rule has not changed yet; where several take the same tensor, one would change what the others sent.
    """
    for node in list(network.graph.nodes):
        if node.op == "call_module" and type(module := network.get_submodule(node.target)) in rules.exact:
            with network.graph.inserting_before(node):
                node.args = tuple(network.graph.call_function(torch.clone, (argument,)) for argument in node.args)
            if rules.windowed and isinstance(module, nn.MaxPool2d):
                network.set_submodule(node.target, WindowMax(module))


def _scaling(rules: Rules) -> Set[str]:
    return SCALING if rules.functions >= LINEAR else set()


def _scales(node: fx.Node) -> bool:
    """Whether one tensor is multiplied by a constant, or divided by one."""
    varying = [argument for argument in node.args if _varies(argument)]
    return len(varying) == 1 and ("div" not in _name(node) or node.args[0] is varying[0])
