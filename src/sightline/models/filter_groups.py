"""The groups of a layer's filters, carried by that layer: what icCNN finds, for whoever explains or draws the model later.

They are no part of the weights, so that a trained file stays one of the upstream model; a run keeps them in its checkpoint.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sightline.errors import SightlineError

NAME = "filter_groups"
STORED = "._assigned._extra_state"  # of the guide, in a checkpoint


def carry_filter_groups(model: nn.Module, layer: str, groups: Tensor) -> None:
    """Have a layer of a model carry the group (C,) of each of its filters, in place of any that it has."""
    model.get_submodule(layer).register_buffer(NAME, groups, persistent=False)


def carried_filter_groups(model: nn.Module) -> tuple[str, Tensor] | None:
    """The layer of a model that carries groups, by name, and the group (C,) of each of its filters; None where none does."""
    for name, module in model.named_modules():
        if isinstance(groups := module._buffers.get(NAME), Tensor):
            return name, groups
    return None


def stored_filter_groups(checkpoint: Path) -> Tensor:
    """The group (C,) of each filter in a run's checkpoint, as its last grouping left them; (0,) where there are none.

    Raises:
        SightlineError: the file is damaged.
    """
    if not checkpoint.is_file():
        return torch.empty(0)
    try:
        with safe_open(checkpoint, framework="pt") as file:
            found = [file.get_tensor(name) for name in file.keys() if name.endswith(STORED)]  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise SightlineError(f"{checkpoint} is damaged ({error}); the groups of filters are kept there") from error
    return next((groups for groups in reversed(found) if len(groups)), torch.empty(0))
