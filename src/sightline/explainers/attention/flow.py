"""Attention followed through the blocks of a transformer: attention rollout and transformer attribution."""

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.explainers.attention.recording import record_attention
from sightline.explainers.precision import PreciseExplainer
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets, resolve_score


class _Flow(PreciseExplainer):
    """What the tokens that are read for the score have of each token of the input, followed through the blocks.

    A block takes tokens x to `share` (x + A x), with a matrix A of its own.
    """

    share: ClassVar[float]

    def explain_precisely(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]; `layer` says how tokens are arranged where the model's family does not."""
        recorded = record_attention(model, inputs, layer)
        calls = [*recorded.blocks, *([recorded.pooling] if recorded.pooling else [])]
        gradients = recorded.gradients(resolve_score(targets, recorded.output), [call.weights for call in calls])
        wide = at_least_float32(inputs).dtype  # a model may compute its attention in float32 in a model of another type
        parts = [self.part(c.weights.detach().to(wide), g.to(wide)) for c, g in zip(calls, gradients)]
        count = len(recorded.blocks)
        pools = bool(recorded.pooling and gradients[-1].any())  # a model may pool and not read what it pooled
        if pools:
            rows = parts[-1].mean(1, keepdim=True)
            rows = F.pad(rows, (parts[0].shape[-1] - rows.shape[-1], 0))  # it may leave the class token out
        else:
            # The last block's attention of a token counts for the score only if the token itself is read.
            read = gradients[count - 1].abs().sum((1, 3)) > 0
            rows = (read / read.sum(1, keepdim=True).clamp_min(1)).to(parts[0])[:, None]
        mixed = torch.zeros_like(rows)
        for blocks, each in enumerate(reversed(parts[:count])):
            mixed = self.share * (mixed + (mixed + self.share**blocks * rows) @ each)
        if pools:  # elsewhere, what tokens keep of themselves is the same at every place that is read
            mixed = mixed + self.share**count * rows
        return recorded.to_maps(mixed[:, 0])

    @abstractmethod
    def part(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """Return the matrix A (B, Q, K) of one attention call, from its weights and their gradients (B, heads, Q, K)."""


@EXPLAINERS.register("attention_rollout", needs_gradient=True, needs_layer=False, needs_attention=True)
class AttentionRollout(_Flow):
    """Attention rollout: the product of (I + A) / 2 over all blocks, A the mean over heads (Abnar & Zuidema 2020).

    It shows how much of each place reaches the tokens that the score reads: the class token, the mean of all tokens, or what a
    pooling attention reads. The class changes nothing.

    References:
        Abnar, Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), section "Attention Rollout and Attention Flow".
    """

    share = 0.5

    def part(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """Return the mean over heads."""
        return weights.mean(1)


@EXPLAINERS.register("transformer_attribution", needs_gradient=True, needs_layer=False, needs_attention=True)
class TransformerAttribution(_Flow):
    """Transformer attribution: attention times its gradient, followed through the blocks (Chefer et al. 2021).

    R <- R + A R from R = I, with A the mean over heads of the positive part of dY/dA * A, as in "Generic Attention-model
    Explainability" (ICCV 2021). A pooling attention multiplies R by its own A.

    References:
        Chefer, Gur, Wolf, "Transformer Interpretability Beyond Attention Visualization" (CVPR 2021), which
            multiplies the gradient by the relevance of LRP instead of the attention.
        Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers"
            (ICCV 2021), Eqs. 5 and 6: the rules for self-attention.
    """

    share = 1.0

    def part(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """Return the mean over heads of the positive part of weights times gradients."""
        return (weights * gradients).relu().mean(1)
