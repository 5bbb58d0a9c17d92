"""The classes of ImageNet-1k: their names, and the WordNet identifiers (wnids) that name their folders."""

import re
from collections.abc import Sequence

from sightline._core.optional import requires_extra

COUNT = 1000
WNID = re.compile(r"n\d{8}")


def imagenet_classes() -> list[str]:
    """Return a name for each of ImageNet's 1000 classes, no two of them the same, in the order of the logits."""
    from torchvision.models import ResNet18_Weights

    return [*ResNet18_Weights.DEFAULT.meta["categories"]]


def imagenet_wnids() -> list[str]:
    """Return the wnid of each of ImageNet's 1000 classes in the order of the logits, which is that of the text."""
    with requires_extra("timm", "the list of ImageNet's wnids"):
        from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_names()


def are_wnids(names: Sequence[str]) -> bool:
    """Return whether names of classes are wnids."""
    return bool(names) and all(map(WNID.fullmatch, names))


def names_of_wnids(wnids: Sequence[str]) -> list[str]:
    """Return the names of classes that wnids name; a wnid that ImageNet-1k does not have names itself."""
    classes = imagenet_classes()
    order = sorted(wnids) if len(set(wnids)) == COUNT else imagenet_wnids()
    known = dict(zip(order, classes))
    return [known.get(wnid, wnid) for wnid in wnids]
