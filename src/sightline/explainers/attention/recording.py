"""The attention of one forward pass: what each token gave to each other, as part of the graph of the logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sightline.errors import NotDefinedError
from sightline.explainers.attention.forms import MULTI_HEAD, SDPA, SOFTMAX, attention_weights, multi_head, sdpa
from sightline.explainers.base import normalize_maps, resize_maps
from sightline.network.forms import check_open
from sightline.network.layers import LayerSelection, resolve_layers
from sightline.network.layout import Layer, to_spatial
from sightline.network.targets import Score


@dataclass(frozen=True, eq=False)
class Attention:
    """One call of attention.

    Attributes:
        weights: (B, heads, Q, K), what each query gives to each key; part of the graph of what follows.
        query: (B, heads, Q, D); None where the model computes the weights itself.
        key: (B, heads, K, D); None likewise.
        value: (B, heads, K, D); None likewise.
        output: (B, heads, Q, D), the weighted values, part of the graph; None likewise.
    """

    weights: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    output: Tensor | None = None


class Recorder(TorchFunctionMode):
    """Record the attention of what runs in this thread while entered, whether its kernel is fused or not.

    Args:
        batch: number of images.

    Attributes:
        calls: in the order in which they ran.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.calls: list[Attention] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function of torch."""
        kwargs = kwargs or {}
        if func is SDPA:
            return sdpa(self._attend, *args, **kwargs)
        if func is MULTI_HEAD:
            return multi_head(self._attend, *args, **kwargs)
        result = func(*args, **kwargs)
        return self._note_softmax(result) if func in SOFTMAX and result.ndim in (3, 4) else result

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
        weights = _differentiable(attention_weights(query, key, bias, scale))
        output = weights.to(value.dtype) @ value
        if query.ndim == 4:
            self.calls.append(Attention(weights, query, key, value, output))
        return output

    def _note_softmax(self, weights: Tensor) -> Tensor:
        """Note weights that the model computes by itself: (B, heads, Q, K), or (B * heads, Q, K)."""
        weights = _differentiable(weights)
        whole = weights.ndim == 3 and len(weights) % self.batch == 0
        self.calls.append(Attention(weights.unflatten(0, (self.batch, -1)) if whole else weights))
        return self.calls[-1].weights.flatten(0, 1) if whole else weights


def _differentiable(weights: Tensor) -> Tensor:
    """Return weights by which a score can be differentiated, also where all before them is frozen."""
    if weights.requires_grad or not torch.is_grad_enabled():
        return weights
    return weights.detach().requires_grad_()


@dataclass(frozen=True)
class Recorded:
    """One forward pass with its attention.

    Attributes:
        output: what the model returned, with a graph that reaches back to the attention.
        blocks: the attention of every token to every token, in order.
        pooling: attention by which one or several queries read the tokens after the blocks; None where there is none.
        layer: says how many tokens stand for no place, and how the others stand in the image.
        image_size: (H, W) of the input.
    """

    output: Any
    blocks: list[Attention]
    pooling: Attention | None
    layer: Layer
    image_size: tuple[int, int]

    def gradients(self, score: Score, of: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient of each image's score with respect to parts of the graph; zeros where it has no part."""
        with torch.enable_grad():
            total = score(self.output, torch.arange(len(of[0]), device=of[0].device)).sum()
        found = torch.autograd.grad(total, list(of), allow_unused=True)
        return [torch.zeros_like(part) if g is None else g for part, g in zip(of, found)]

    def to_maps(self, tokens: Tensor) -> Tensor:
        """Return values of tokens (B, N) as maps (B, H, W) in [0, 1]."""
        return tokens_to_maps(self.layer, tokens, self.image_size)


def tokens_to_maps(layer: Layer, tokens: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return values of tokens (B, N) as maps (B, H, W) in [0, 1]; those that stand for no place are left out."""
    return normalize_maps(resize_maps(to_spatial(layer, tokens[:, :, None], image_size)[:, 0], image_size))


def token_layer(model: nn.Module, layer: LayerSelection, inputs: Tensor) -> Layer:
    """Return the layer that says how a transformer's tokens stand in the image: the given one, or that of the family.

    Raises:
        NotDefinedError: its output is no sequence of tokens.
    """
    check_open(model)
    found = resolve_layers(model, layer, inputs)[0]
    if found.layout != "tokens":
        raise NotDefinedError(
            f"attention maps are not defined for {type(model).__name__}: layer {found.name!r} is {found.layout}, no tokens; "
            "if it is a transformer, give layer=sightline.Layer(name, 'tokens', prefix=...), the name of a layer in its "
            "last block with the number of class tokens, or use another explainer, such as 'gradcam'"
        )
    return found


def record_attention(model: nn.Module, inputs: Tensor, layer: LayerSelection) -> Recorded:
    """Run a transformer once, and return its attention.

    Raises:
        NotDefinedError: the model has no attention of all tokens to all tokens.
    """
    tokens = token_layer(model, layer, inputs)
    with torch.enable_grad(), Recorder(len(inputs)) as recorder:
        output = model(inputs)
    blocks, pooling = split_calls(model, recorder.calls, len(inputs), tokens.prefix)
    return Recorded(output, blocks, pooling, tokens, (inputs.shape[-2], inputs.shape[-1]))


def split_calls(
    model: nn.Module, calls: list[Attention], batch: int, prefix: int
) -> tuple[list[Attention], Attention | None]:
    """Return the attention of every token to every token, and that which pools the tokens afterwards, if there is any.

    Raises:
        NotDefinedError: there is other attention, or none.
    """
    shapes = [tuple(call.weights.shape) for call in calls]
    count = next((shape[-1] for shape in shapes), 0)
    blocks = [call for call, shape in zip(calls, shapes) if (shape[0], *shape[2:]) == (batch, count, count)]
    rest = calls[len(blocks) :]
    pools = all(shape[0] == batch and shape[-1] in (count, count - prefix) for shape in shapes[len(blocks) :])
    if count < 2 or len(rest) > 1 or not pools or calls[: len(blocks)] != blocks:
        what = f"its attention has the shapes {sorted(set(shapes))}" if calls else "it calls no attention that is seen"
        raise NotDefinedError(
            f"attention maps are not defined for {type(model).__name__}: every token must look at every token, in all blocks, "
            f"and {what}; use another explainer, such as 'gradcam'"
        )
    return blocks, rest[0] if rest else None
