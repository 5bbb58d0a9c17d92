"""The loss of the task, which guides weigh and measure by."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError


def task_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, targets: Tensor | None = None) -> Tensor:
    """Return the task loss of each image.

    Args:
        logits: (B, K).
        labels: (B,) class indices, or (B, K) with 1 for every class that an image shows.
        label_smoothing: share of the target that is spread evenly over all classes, or over the two answers for each class.
        targets: (B, K) how much of each class an image shows; None = as the labels say.

    Returns:
        (B,): the cross-entropy; for several labels the binary cross-entropy of the sigmoid, averaged over the classes.

    Raises:
        SightlineError: there are labels of another number of classes.
    """
    logits = at_least_float32(logits)
    if labels.ndim == 1:
        classes = labels if targets is None else _fitting(targets, logits)
        return F.cross_entropy(logits, classes, reduction="none", label_smoothing=label_smoothing)
    shown = _fitting(labels if targets is None else targets, logits) * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, shown, reduction="none").mean(1)


def _fitting(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels or targets (B, K) in the type of the logits."""
    if labels.shape != logits.shape:
        raise SightlineError(f"labels have shape {tuple(labels.shape)}; the model's logits have {tuple(logits.shape)}")
    return labels.to(logits)


def true_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each image's label (B, 1), by the softmax; for labels (B, K), of what is true of each class (B, K), by the sigmoid."""
    wide = at_least_float32(logits)
    if labels.ndim == 1:
        return wide.log_softmax(1).gather(1, labels[:, None])
    return F.logsigmoid(torch.where(labels.bool(), wide, -wide))
