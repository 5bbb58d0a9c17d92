"""The attention branch network: an attention map that classifies by itself, and that features are multiplied by."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.base import Context, Guide
from sightline.guides.registry import GUIDES
from sightline.models.attention_branch import AttentionBranchModule, attach_attention_branch


@GUIDES.register("attention_branch", needs_masks=False, needs_layer=False, pixel_space=False, reweights=False)
class AttentionBranch(Guide):
    """ABN: behind a stage, features times (1 + attention), and a second cross-entropy of the branch that makes the attention.

    The branch becomes part of the model, ships with it under `<layer>.attention_branch.*`, and `load_model` puts it back.
    The explainer `attention_branch` shows its attention. It needs no masks and no maps.

    Args:
        weight: of the branch's cross-entropy beside the model's.
        layer: behind which the branch stands; None = the last stage at a sixteenth of the input's side.

    Reference:
        Fukui et al., "Attention Branch Network: Learning of Attention Mechanism for Visual Explanation", CVPR 2019; its branch
        has residual blocks of the network's kind, where this one has one convolution.
    """

    branch: AttentionBranchModule

    def __init__(self, weight: float = 1.0, layer: str | None = None) -> None:
        super().__init__()
        if not weight >= 0:
            raise SightlineError(f"weight is {weight}; expected a number >= 0")
        self.weight, self.layer = float(weight), layer
        self._logits: list[Tensor] = []

    def loss_weights(self, alone: bool) -> tuple[float, float]:
        """(1, weight)."""
        return 1.0, self.weight

    def attach(self, model: nn.Module) -> None:
        """Put the branch into the model, or take the one that is there."""
        self.branch = attach_attention_branch(model, self.layer)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Hear the branch's logits while the views go through the network."""

        def hear(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
            self._logits.append(output[1])

        self._logits.clear()
        handle = self.branch.register_forward_hook(hear)
        try:
            yield
        finally:
            handle.remove()

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """All images."""
        return {"attention_branch": torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """The cross-entropy (B,) of the branch's own logits."""
        logits = at_least_float32(self._logits[0][: len(context.batch)])  # the identity is the first view
        self._logits.clear()  # they hold the step's graph
        return {"attention_branch": F.cross_entropy(logits, context.batch.labels, reduction="none")}
