"""Layer-wise relevance propagation with rules for attention, activation functions and normalization (AttnLRP).

Where every step is linear, a value's relevance is the value times the gradient of the score. The rules change the gradient of
the other steps so this holds for them too (Achtibat et al., "AttnLRP", ICML 2024):

- a product of two values that both depend on the image, such as queries and keys: each gets half;
- softmax: its gradient, which is the first order of its Taylor expansion;
- an activation function: its input gets the relevance of its output;
- normalization: the deviation that it divides by is a constant.

A mode of torch applies them to what the model calls; the modules of the model are not changed.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sightline._core.tensors import at_least_float32
from sightline.attributions.attribution import AttributionRequest, attribution
from sightline.errors import NotDefinedError
from sightline.explainers.attention.forms import MULTI_HEAD, SDPA, multi_head, sdpa
from sightline.network.forms import check_open

ACTIVATIONS = {
    torch.relu, Tensor.relu, torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh, F.celu, F.elu, F.gelu, F.hardsigmoid,
    F.hardswish, F.hardtanh, F.leaky_relu, F.logsigmoid, F.mish, F.relu, F.relu6, F.selu, F.sigmoid, F.silu, F.softplus,
    F.softsign, F.tanh,
}  # fmt: skip
SCALINGS = {F.normalize, F.rms_norm, torch.rms_norm}  # divide by a size of their input
PRODUCTS = {
    torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.mul_,
    torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm, torch.einsum,
}  # fmt: skip
QUOTIENTS = {torch.div, torch.true_divide, Tensor.div, Tensor.true_divide, Tensor.__truediv__}
INVERSES = {torch.rsqrt, Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal}


@attribution("attnlrp", precise="always")
def attnlrp(request: AttributionRequest) -> Tensor:
    """AttnLRP: relevance propagation with rules for attention, activation functions and norms too (Achtibat et al. 2024).

    The epsilon rule with an epsilon of 0 for everything linear. A network of ReLUs without attention or norms gets the map of
    input x gradient.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers" (ICML 2024),
            Propositions 3.1, 3.3 and 3.4: the rules for softmax, products of matrices and normalization.
    """
    check_open(request.model)
    inputs = request.input_leaf()
    with torch.enable_grad():
        with Rules():
            output = frozen_copy(request.model)(inputs.to(request.dtype))
        scores = at_least_float32(request.score(output, request.image_index))
        (gradients,) = torch.autograd.grad(scores.sum(), inputs)
    expected = request.forward(request.inputs, request.image_index)
    if not torch.allclose(scores, expected, rtol=1e-3, atol=1e-4):
        raise NotDefinedError(
            f"attnlrp is not defined for this model: {type(request.model).__name__} gives other scores where steps in place "
            "are computed out of place; use another explainer, such as 'transformer_attribution'"
        )
    return inputs.detach() * gradients


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy that shares the values of the model and trains nothing: what requires a gradient depends on the image."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})


class Rules(TorchFunctionMode):
    """The rules, for what runs in this thread while entered."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function of torch."""
        kwargs = kwargs or {}
        if func is SDPA:
            return sdpa(_attend, *args, **kwargs)
        if func is MULTI_HEAD:
            return multi_head(_attend, *args, **kwargs)
        if func in PRODUCTS:
            return shared(func(*args, **kwargs), _depending([*args, *kwargs.values()]))
        if func in QUOTIENTS and len(args) == 2 and _depending(args[:1]) and _depending(args[1:]):
            return func(args[0], args[1].detach(), **kwargs)
        if func in INVERSES:
            return func(*args, **kwargs).detach()
        if func in ACTIVATIONS or func in SCALINGS:
            return _kept(partial(func, **kwargs), *args)
        if func in NORMS:
            return NORMS[func](*args, **kwargs)
        return func(*args, **kwargs)


def shared(result: Tensor, parts: int) -> Tensor:
    """Return a result of which each of `parts` factors gets its share: the same values, and a gradient divided by `parts`."""
    return result if parts < 2 else result.detach() + (result - result.detach()) / parts


def _depending(values: Sequence[Any]) -> int:
    """Return how many tensors among values, or in lists among them, depend on the image."""
    return sum(
        _depending(value) if isinstance(value, tuple | list) else isinstance(value, Tensor) and value.requires_grad
        for value in values
    )


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    """Attention: half of the relevance goes to the values and half to the weights, of which queries and keys get half each."""
    asked = _depending([query, key])
    halves = _depending([value]) + bool(asked)
    query, key, value = shared(query, halves * asked), shared(key, halves * asked), shared(value, halves)
    return SDPA(query, key, value, attn_mask=bias, scale=scale)


def _kept(func: Callable[..., Tensor], value: Tensor, *args: Any) -> Tensor:
    """Return func(value), whose relevance goes to the value unchanged."""
    result = func(value.detach().clone(), *args)  # it may work in place
    ratio = torch.where(value == 0, 0.0, result / torch.where(value == 0, 1.0, value.detach()))
    return result + (value - value.detach()) * ratio


def _layer_norm(
    value: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *options: Any,
) -> Tensor:  # fmt: skip
    """LayerNorm with the deviation that it divides by as a constant."""
    change = _centered(value, tuple(range(-len(normalized_shape), 0)), eps)
    result = F.layer_norm(value.detach(), normalized_shape, weight, bias, eps)
    return result + (change if weight is None else change * weight)


def _group_norm(
    value: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    *options: Any,
) -> Tensor:  # fmt: skip
    """GroupNorm, likewise."""
    groups = value.unflatten(1, (num_groups, -1))
    change = _centered(groups, tuple(range(2, groups.ndim)), eps).flatten(1, 2)
    result = F.group_norm(value.detach(), num_groups, weight, bias, eps)
    return result + (change if weight is None else change * weight.reshape(-1, *[1] * (value.ndim - 2)))


def _centered(value: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Return 0 with the gradient of (x - mean) / deviation, where the deviation is a constant."""
    deviation = (value.detach().var(dims, correction=0, keepdim=True) + eps).sqrt()
    change = value - value.detach()
    return (change - change.mean(dims, keepdim=True)) / deviation


NORMS: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm, torch.layer_norm: _layer_norm, F.group_norm: _group_norm, torch.group_norm: _group_norm,
}  # fmt: skip
