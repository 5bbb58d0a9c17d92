"""How models call attention, and the same attention with its weights in the open.

Fused kernels return no weights. A mode of torch that watches the functions which a model calls (`TorchFunctionMode`) sees
every call of this thread, and may compute it differently. The modules of the model do not change.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.errors import NotDefinedError

SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax}
SDPA = F.scaled_dot_product_attention
MULTI_HEAD = F.multi_head_attention_forward

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float | None], Tensor]


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    """Return the weights (B, heads, Q, K) that each query gives to the keys.

    Args:
        query: (B, heads, Q, D).
        key: (B, heads, K, D).
        bias: added before the softmax, or bool: True where a query may look; None = none.
        scale: of the products; None = 1 / sqrt(D).
    """
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
    return scores.softmax(-1)


def sdpa(
    attend: Attend,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute `scaled_dot_product_attention` by a function of query, key, value, bias and scale; without dropout."""
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    return attend(query, key, value, attn_mask, scale)


def multi_head(
    attend: Attend,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute what `torch.nn.MultiheadAttention` calls, for queries (Q, B, C) and keys (K, B, C), likewise.

    Raises:
        NotDefinedError: it adds its own tokens or hides keys.
    """
    used = {name for name in ("key_padding_mask", "static_k", "static_v") if options.get(name) is not None}
    used |= {name for name, value in (("bias_k", bias_k), ("bias_v", bias_v)) if value is not None}
    used |= {"add_zero_attn"} if add_zero_attn else set()
    if used:
        raise NotDefinedError(f"attention maps are not defined for a MultiheadAttention with {', '.join(sorted(used))}")
    if options.get("use_separate_proj_weight"):
        weights = [options[f"{name}_proj_weight"] for name in "qkv"]
    else:
        assert in_proj_weight is not None
        weights = list(in_proj_weight.chunk(3))
    biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))

    def heads(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(tokens, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)  # (B, heads, N, D)

    query, key, value = (heads(*each) for each in zip((query, key, value), weights, biases))
    mask = options.get("attn_mask")
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (-1, num_heads))
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # True hides a key there
    attended = attend(query, key, value, mask, None)
    returned = attention_weights(query, key, mask, None) if options.get("need_weights", True) else None
    if returned is not None and options.get("average_attn_weights", True):
        returned = returned.mean(1)
    return F.linear(attended.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias), returned
