"""Focal loss and equalized focal loss: less weight for images that are predicted with confidence."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_non_negative, check_positive
from sightline._core.distributed import sum_over_processes
from sightline.data.batch import Batch
from sightline.guides.registry import GUIDES
from sightline.guides.sample_weights import Normalize, Reweighter, Stored
from sightline.objectives.losses import true_log_probabilities


@GUIDES.register("focal", reweights=True)
class Focal(Reweighter):
    """Focal loss: the loss of each image times (1 - p)^gamma, p the probability of its label (Lin et al. 2017).

    The factor is part of the loss: gradients go through it. There is no alpha. Where images can have several labels, every
    class's binary cross-entropy has its own factor, p the probability of what is true of the class, and the loss is their
    mean; an image's weight is the factor of the whole, focal loss / cross-entropy.

    Args:
        gamma: the exponent; 0 is the cross-entropy.
        normalize: what the loss is divided by: the number of images in the `"batch"` (focal loss as it is known), or the sum of
            the `"weights"`, held fixed.

    References:
        Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), section 3.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
        >>> objective = sl.Objective(model, sl.Focal(gamma=2.0))
        >>> objective(batch)["loss"].backward()
    """

    multi_label = True

    def __init__(self, gamma: float = 2.0, normalize: Normalize = "batch") -> None:
        super().__init__(normalize)
        check_non_negative(gamma=gamma)
        self.gamma = gamma

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor:
        """(1 - p)^gamma for each image (B,), differentiable."""
        return self._noted(batch, _focal(logits, batch.labels, self.gamma))


@GUIDES.register("equalized_focal", reweights=True)
class EqualizedFocal(Focal):
    """Equalized focal loss: focal loss whose gamma grows for classes that get little positive gradient (Li et al. 2022).

    gamma_j = gamma + scale (1 - g_j) for class j, and the weight of an image of this class is
    (gamma_j / gamma) (1 - p)^gamma_j. g_j is the sum of the gradients that the cross-entropy's logit j has had from images of
    the class, by the sum of those from others, clipped to [0, 1]. The paper has one sigmoid a class, and so has this where
    images can have several labels: as for focal loss, every class's term then has the factor of its own gamma_j. For one label
    p is the softmax. The gradient at logit j is 1 - p_j for images of the class and p_j for others, with both.

    Args:
        gamma: the exponent of a class in balance, above 0.
        scale: the most that is added to it.
        normalize: what the loss is divided by: as for focal loss.

    References:
        Li et al., "Equalized Focal Loss for Dense Long-Tailed Object Detection" (CVPR 2022), the focusing factor of each class.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
        >>> objective = sl.Objective(model, sl.EqualizedFocal())
        >>> objective(batch)["loss"].backward()
    """

    def __init__(self, gamma: float = 2.0, scale: float = 8.0, normalize: Normalize = "batch") -> None:
        super().__init__(gamma, normalize)
        check_positive(gamma=gamma)
        check_non_negative(scale=scale)
        self.scale = scale
        self._gradients = Stored()

    @property
    def gammas(self) -> Tensor:
        """gamma_j (K,) of each class by the gradients so far; empty before the first training step."""
        if not len(self._gradients.values):
            return self._gradients.values
        positive, negative = self._gradients.values
        ratio = torch.where(negative > 0, positive / negative, 1.0).clamp(0, 1)
        return self.gamma + self.scale * (1 - ratio)

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor:
        """(gamma_y / gamma) (1 - p)^gamma_y for each image (B,), differentiable; counts the gradients afterwards."""
        gammas = self.gammas.to(logits.device)
        if not len(gammas):
            gammas = torch.full(logits.shape[1:], self.gamma, device=logits.device)
        gamma = gammas if batch.multi_label else gammas[batch.labels, None]
        weights = _focal(logits, batch.labels, gamma, gamma / self.gamma)
        if self.training:
            self._count(logits.detach(), batch.labels)
        return self._noted(batch, weights)

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        """Add the gradients of a batch, those of all processes."""
        several = labels.ndim == 2
        probabilities = logits.double().sigmoid() if several else logits.double().softmax(1)
        own = labels.bool() if several else F.one_hot(labels, logits.shape[1]).bool()
        sums = torch.stack([(1 - probabilities).where(own, 0).sum(0), probabilities.where(~own, 0).sum(0)])
        sum_over_processes(sums)
        before = self._gradients.values.to(sums.device)
        self._gradients.values = sums + before if len(before) else sums


def _focal(logits: Tensor, labels: Tensor, gamma: float | Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """Return the focal factor (B,) of each image's task loss: scale (1 - p)^gamma, with gamma and scale (B, 1).

    Where images can have several labels, gamma and scale are those of the classes (K,), and the factor is the classes' own
    factors averaged by their losses.
    """
    logs = true_log_probabilities(logits, labels)
    wrong = -torch.expm1(logs)
    # A power below 1 has no gradient at 0.
    factors = scale * wrong.clamp_min(torch.finfo(wrong.dtype).tiny) ** gamma
    if labels.ndim == 1:
        return factors[:, 0]
    return (factors * -logs).sum(1) / (-logs).sum(1).clamp_min(1e-12)
