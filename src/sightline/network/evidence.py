"""What a model's modules say about the output of a layer."""

from torch import nn

from sightline.network.layout import Evidence


def evidence_of(model: nn.Module, name: str) -> Evidence:
    """Return what a model says about a layer: the channels of a stage of timm, and the patches that make tokens.

    Args:
        model: an unwrapped model.
        name: of the layer.
    """
    return Evidence(_stage_channels(model, name), _patches(model))


def _stage_channels(model: nn.Module, name: str) -> int | None:
    """Return how many channels a stage has by the `feature_info` of the model of timm that it is part of."""
    parts = name.split(".")
    for depth in range(len(parts)):
        outer, inner = ".".join(parts[:depth]), ".".join(parts[depth:])
        stages = getattr(model.get_submodule(outer), "feature_info", None)
        for stage in stages if isinstance(stages, list) else []:
            if stage["module"] == inner:
                return int(stage["num_chs"])
    return None


def _patches(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return the (height, width) of the patches that convolutions read without overlap, in pixels of what they read."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    found = [c.kernel_size for c in convolutions if c.kernel_size == c.stride and max(c.kernel_size) > 1]
    return tuple(dict.fromkeys((height, width) for height, width in found))
