"""Which training images do not have the bias of the others, and their share among the highest weights."""

from math import sqrt

import torch
from torch import Tensor

from sightline.data import ImageDataset
from sightline.datasets.derived.biased import Biased
from sightline.datasets.derived.mask_quality import DegradedMasks
from sightline.datasets.derived.subset import Subset
from sightline.errors import SightlineError


def unbiased_images(images: ImageDataset) -> Tensor:
    """Return which training images (N,) bool do not have the bias of the others.

    Raises:
        SightlineError: the dataset does not say, or all of its images are the same in this respect.
    """
    unbiased = _unbiased(images)
    if unbiased.all() or not unbiased.any():
        raise SightlineError(
            f"data: {int(unbiased.sum())} of {len(unbiased)} training images are unbiased; expected some, but not all "
            "(of 'recomposed', correlation decides)"
        )
    return unbiased


def _unbiased(images: ImageDataset) -> Tensor:
    if isinstance(images, Subset):
        return _unbiased(images.dataset)[torch.tensor(images.indices)]
    if isinstance(images, DegradedMasks):
        return _unbiased(images.dataset)
    if isinstance(images, Biased):
        return ~images.biased
    if images.group_ids is not None and len(images.groups) == len(images.classes) ** 2:
        return images.group_ids // len(images.classes) != images.group_ids % len(images.classes)
    raise SightlineError(
        "data: it is not known which training images are unbiased; expected the dataset 'biased', or one whose groups are "
        "pairs of a class and the class of the background, such as 'recomposed'"
    )


def unbiased_share(weights: Tensor, unbiased: Tensor, top: float) -> float:
    """Return the share of unbiased images among those of the highest weights.

    Images that share the weight at the border count by the expected share over all ways to order them.

    Args:
        weights: (N,).
        unbiased: (N,) bool.
        top: the share of the images that is looked at; at least one image is.
    """
    count = max(1, round(top * len(weights)))
    border = weights.topk(count).values[-1]
    above, tied = weights > border, weights == border
    room = count - above.sum()
    found = unbiased[above].sum() + room * unbiased[tied].double().mean()
    return float(found / count)


def chance_spread(images: int, chance: float, top: float) -> float:
    """Return the standard deviation of the share of unbiased images in a top drawn at random (hypergeometric)."""
    count = max(1, round(top * images))
    return sqrt(chance * (1 - chance) / count * (images - count) / (images - 1))
