"""The names of ImageNet's classes."""

from sightline._core.optional import requires_extra


def imagenet_classes() -> list[str]:
    """The first name of each of ImageNet's 1000 classes."""
    with requires_extra("timm", "the list of ImageNet's classes"):
        from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).partition(",")[0] for index in range(1000)]
