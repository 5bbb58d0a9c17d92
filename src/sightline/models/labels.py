"""Names for a model's classes."""

from torch import nn

from sightline._core.optional import requires_extra
from sightline.network.head import head_parameters
from sightline.network.logits import class_count


def default_class_names(model: nn.Module) -> list[str]:
    """Return a name for each class of a model: the names of ImageNet's classes for 1000 logits, else the indices."""
    count = model_classes(model)
    return imagenet_classes() if count == 1000 else [str(index) for index in range(count)]


def model_classes(model: nn.Module) -> int:
    """Return how many classes a model tells apart, by its head."""
    return class_count(head_parameters(model)[0].shape[0])


def imagenet_classes() -> list[str]:
    """The first name of each of ImageNet's 1000 classes."""
    with requires_extra("timm", "the list of ImageNet's classes"):
        from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).partition(",")[0] for index in range(1000)]
