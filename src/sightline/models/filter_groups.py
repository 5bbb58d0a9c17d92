"""The groups of a layer's filters, carried by that layer: what icCNN finds, for later explanations and drawings.

They are not part of the weights, so a trained file stays one of the upstream model; a run keeps them in its checkpoint.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from sightline._core.reading import read_tensors

NAME = "filter_groups"
STORED = "._assigned._extra_state"  # of the guide, in a checkpoint


def carry_filter_groups(model: nn.Module, layer: str, groups: Tensor) -> None:
    """Have a layer of a model carry the group (C,) of each of its filters, instead of any that it has."""
    model.get_submodule(layer).register_buffer(NAME, groups, persistent=False)


def carried_filter_groups(model: nn.Module) -> tuple[str, Tensor] | None:
    """Return the layer that carries filter groups, by name, and the group (C,) of each of its filters; None if none does."""
    for name, module in model.named_modules():
        if isinstance(groups := module._buffers.get(NAME), Tensor):
            return name, groups
    return None


def stored_filter_groups(checkpoint: Path) -> Tensor:
    """Return the group (C,) of each filter in a run's checkpoint, as the last grouping left them; (0,) if there are none.

    Raises:
        SightlineError: the file is damaged.
    """
    if not checkpoint.is_file():
        return torch.empty(0)
    found, _ = read_tensors(checkpoint, "the groups of filters are kept there; train the run again", STORED)
    return next((groups for groups in reversed(found.values()) if len(groups)), torch.empty(0))
