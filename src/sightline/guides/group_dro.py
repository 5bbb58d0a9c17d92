"""Group DRO: the worst group gets the highest weight; the baseline that uses group labels and no explanation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_count, check_non_negative
from sightline._core.distributed import sum_over_processes
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Guide, Need
from sightline.objectives.losses import task_loss


@GUIDES.register("group_dro", reweights=True)
class GroupDRO(Guide):
    """Group DRO: the task loss is an average over groups, whose weights grow exponentially with their losses.

    In every training step each group g of the batch has its weight multiplied by exp(step_size L_g), L_g its mean
    cross-entropy; the weights then sum to 1 over all groups. The loss is sum_g q_g L_g over the groups of the batch,
    divided by the sum of their q, so a batch that lacks a group has a loss of the same size. Weights are shared by
    all processes and saved with the objective.

    Args:
        groups: number of groups in the data; `batch.groups` holds 0 .. groups - 1.
        step_size: step size of the weights (> 0), eta in the paper.

    Attributes:
        log_weights: (groups,) the logarithm of each group's weight.

    References:
        Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for
            Worst-Case Generalization" (ICLR 2020), Algorithm 1.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), groups=torch.tensor([0, 3]))
        >>> objective = sl.Objective(model, sl.GroupDRO(groups=4))
        >>> objective(batch)["loss"].backward()
    """

    needs: Need | None = "groups"
    log_weights: Tensor

    def __init__(self, groups: int, step_size: float = 0.01) -> None:
        super().__init__()
        check_count(groups=groups)
        check_non_negative(step_size=step_size)
        self.groups, self.step_size = groups, step_size
        self.register_buffer("log_weights", torch.zeros(groups).log_softmax(0))

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the weight q_g / n_g (B,) of each image, where n_g is the number of images of its group in the batch.

        Raises:
            SightlineError: the batch has no groups, or one that is out of range.
        """
        if batch.groups is None:
            raise SightlineError(
                "group_dro needs the group of every image, and the batch has no groups; give Batch(groups=)"
            )
        low, high = batch.range_of("groups")
        if low < 0 or high >= self.groups:
            raise SightlineError(f"the batch's groups range over [{low}, {high}]; group_dro was made for {self.groups}")
        losses = task_loss(logits.detach(), batch.labels)
        member = F.one_hot(batch.groups, self.groups).to(losses)  # (B, groups)
        sums, sizes = member.T @ losses, member.sum(0)
        if self.training:
            sums, sizes = sum_over_processes(torch.stack([sums, sizes]))
        if self.training and torch.is_grad_enabled():
            means = (sums / sizes.clamp_min(1)).nan_to_num(
                0, 0, 0
            )  # the objective rejects such a batch; the state must not keep it
            self.log_weights.copy_((self.log_weights + self.step_size * means.to(self.log_weights)).log_softmax(0))
        return (self.log_weights.exp().to(losses) / sizes.clamp_min(1))[batch.groups]
