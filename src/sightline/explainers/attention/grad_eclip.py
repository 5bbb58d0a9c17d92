"""Grad-ECLIP: what the values of the last attention add to a score, place by place."""

import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.errors import NotDefinedError
from sightline.explainers.attention.recording import Attention, record_attention
from sightline.explainers.base import normalize_maps
from sightline.explainers.precision import PreciseExplainer
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets, resolve_score


@EXPLAINERS.register("grad_eclip", needs_gradient=True, needs_layer=False, needs_attention=True)
class GradECLIP(PreciseExplainer):
    """Grad-ECLIP: values of the last attention, weighted by the score's gradient and likeness to the query (Zhao et al. 2024).

    The map at place i is ReLU(l_i sum_c w_c v_ic): w is the gradient of the score with respect to what the attention gives the
    one token that is read, v are the values, and l is the cosine of the token's query and the place's key, scaled to [0, 1]
    over the places. The token is the class token, or the query of a pooling attention. Made for CLIP, and defined for any
    transformer that reads one token.

    References:
        Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP" (ICML 2024), Eqs. 7 and 8.
    """

    def explain_precisely(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]; `layer` says how tokens are arranged where the model's family does not."""
        recorded = record_attention(model, inputs, layer)
        calls = [call for call in (recorded.blocks[-1], recorded.pooling) if call is not None]
        gradients = recorded.gradients(resolve_score(targets, recorded.output), [_output(model, c) for c in calls])
        # A model may pool and not read what it pooled.
        call, gradient = next((c, g) for c, g in zip(reversed(calls), reversed(gradients)) if g.any() or c is calls[0])
        wide = at_least_float32(inputs).dtype
        query, key, value, gradient = (_joined(part).to(wide) for part in (call.query, call.key, call.value, gradient))
        read = gradient.abs().sum(2)  # (B, Q)
        if (most := int((read > 0).sum(1).max())) > 1:
            raise NotDefinedError(
                f"grad_eclip is not defined for {type(model).__name__}: its score reads {most} tokens after the last "
                "attention; expected one, such as a class token; use 'transformer_attribution'"
            )
        row = read.argmax(1)[:, None, None]
        query, gradient = (part.take_along_dim(row, 1) for part in (query, gradient))  # (B, 1, C)
        missing = (
            recorded.blocks[-1].weights.shape[-1] - key.shape[1]
        )  # a pooling attention may leave the class token out
        places = slice(recorded.layer.prefix - missing, None)
        likeness = F.cosine_similarity(query, key, dim=2)[:, places]
        spatial = normalize_maps(likeness[:, None])[:, 0]
        gained = ((gradient * value).sum(2)[:, places] * spatial).relu()
        return recorded.to_maps(F.pad(gained, (recorded.layer.prefix, 0)))


def _output(model: nn.Module, call: Attention) -> Tensor:
    """Return what a call of attention gave.

    Raises:
        NotDefinedError: the model computes it by itself.
    """
    if call.output is None:
        raise NotDefinedError(
            f"grad_eclip is not defined for {type(model).__name__} as it computes its attention now; let it call "
            "scaled_dot_product_attention: attn_implementation='sdpa' in transformers, fused_attn=True in timm"
        )
    return call.output


def _joined(heads: Tensor | None) -> Tensor:
    """Return heads (B, heads, N, D) side by side, (B, N, heads * D)."""
    assert heads is not None
    return heads.detach().transpose(1, 2).flatten(2)
