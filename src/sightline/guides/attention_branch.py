"""The attention branch network: an attention map that classifies by itself, and that features are multiplied by."""

from contextlib import AbstractContextManager

from torch import Tensor, nn

from sightline.data.batch import Batch
from sightline.guides.balance import WeightedGuide
from sightline.guides.recording import OutputRecorder
from sightline.guides.registry import GUIDES
from sightline.models.attention_branch import AttentionBranchModule, attach_attention_branch
from sightline.network.logits import logits_of
from sightline.objectives.base import Context, all_images
from sightline.objectives.losses import task_loss


@GUIDES.register("attention_branch")
class AttentionBranch(WeightedGuide):
    """ABN: behind a stage, features times (1 + attention), and a second cross-entropy of the branch that makes the attention.

    The branch becomes part of the model, ships with it under `<layer>.attention_branch.*`, and `load_model` puts it back.
    The explainer `attention_branch` shows its attention. It needs no masks and no maps.

    Args:
        weight: of the branch's cross-entropy; the model's has weight 1.
        layer: behind which the branch stands; None = the last stage at a sixteenth of the input's side.

    References:
        Fukui et al., "Attention Branch Network: Learning of Attention Mechanism for Visual Explanation" (CVPR 2019); its
            branch has residual blocks of the network's kind, where this one has one convolution.
    """

    branch: AttentionBranchModule

    def __init__(self, weight: float = 1.0, layer: str | None = None) -> None:
        super().__init__(weight, False)
        self.layer = layer
        self._recorder = OutputRecorder()

    def attach(self, model: nn.Module) -> None:
        """Put the branch into the model, or take the one that exists."""
        self.branch = attach_attention_branch(model, self.layer)

    def capture(self) -> AbstractContextManager[None]:
        """Record the branch's attention and logits."""
        return self._recorder.record(self.branch)

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """All images."""
        return {"attention_branch": all_images(batch)}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the cross-entropy (B,) of the branch's own logits."""
        _, logits = self._recorder.take()
        return {"attention_branch": task_loss(logits_of(logits[: len(context.batch)]), context.batch.labels)}
