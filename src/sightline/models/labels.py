"""Names for a model's classes."""

from torch import nn

from sightline._core.optional import requires_extra
from sightline.network.head import head_parameters


def default_class_names(model: nn.Module) -> list[str]:
    """Return a name for each logit of a model: the names of ImageNet's classes for 1000 logits, else the indices."""
    count = head_parameters(model)[0].shape[0]
    return imagenet_classes() if count == 1000 else [str(index) for index in range(count)]


def imagenet_classes() -> list[str]:
    """The first name of each of ImageNet's 1000 classes."""
    with requires_extra("timm", "the list of ImageNet's classes"):
        from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).partition(",")[0] for index in range(1000)]
