"""What the logits of a head are fitted to."""

import torch
from torch import Tensor

from sightline._core.tensors import check_shape
from sightline.errors import SightlineError


def targets_of(labels: Tensor, images: int, classes: int | None) -> Tensor:
    """Return class indices (N,) int64, or (N, K) float64 for independent logits."""
    check_shape(labels, "labels", (images,), (images, "K"))
    if labels.ndim == 2:
        if classes not in (None, labels.shape[1]):
            raise SightlineError(f"classes is {classes}; expected {labels.shape[1]}, as labels have columns")
        highest = 1
    else:
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise SightlineError(f"labels are {labels.dtype}; expected class indices (N,) as integers")
        highest = int(labels.max()) if classes is None else max(1, classes - 1)
    if labels.min() < 0 or labels.max() > highest:
        expected = (
            f"class indices 0 .. {highest}" if labels.ndim == 1 else "1 for every class that an image shows, else 0"
        )
        raise SightlineError(f"labels range over [{labels.min()}, {labels.max()}]; expected {expected}")
    if labels.ndim == 2:
        return labels.double()
    return labels[:, None].double() if classes == 1 else labels.long()


def check_shown(targets: Tensor, count: int, share: Tensor) -> None:
    """Reject a class that no image shows, or that every image shows where it has its own logit."""
    if targets.ndim == 2:
        shown = share @ targets
        lacking = ((shown <= 0) | (shown >= share.sum() * (1 - 1e-12))).nonzero().flatten().tolist()
        what = "images with it and images without it"
    else:
        if count < 2:
            raise SightlineError("labels are all of class 0; expected at least two classes")
        lacking = (share.new_zeros(count).index_add_(0, targets, share) <= 0).nonzero().flatten().tolist()
        what = "at least one image of positive weight"
    if lacking:
        raise SightlineError(
            f"labels hold too little of {len(lacking)} classes (such as class {lacking[0]}); expected {what} for each class. "
            "Add images, or leave the classes out"
        )
