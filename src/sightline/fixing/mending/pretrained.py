"""The same network with weights from before: of the library, or of a file."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sightline.data.files import locate
from sightline.fixing.mending.trunk import linear_head
from sightline.models import load_model
from sightline.models.checkpoint import read_checkpoint
from sightline.models.key_matching import fit_checkpoint
from sightline.models.weights import load_weights
from sightline.network.tap import unwrap

LIBRARIES = ("timm/", "torchvision/")


@dataclass(frozen=True)
class Pretrained:
    """A network with pretrained weights.

    Attributes:
        name: of the weights, for the report.
        model: the given architecture with the classes of the given model; its head means nothing.
        general: the network with its own head, which answers its own classes; None = the weights have none.
    """

    name: str
    model: nn.Module
    general: nn.Module | None


def load_pretrained(model: nn.Module, weights: str | Path) -> Pretrained:
    """Load pretrained weights into a copy of a model.

    Args:
        model: does not change.
        weights: a file of weights, or `timm/<name>` or `torchvision/<name>` for those that the library downloads.

    Raises:
        SightlineError: the weights are not available, or are not of this architecture.
    """
    same = copy.deepcopy(unwrap(model))
    head = linear_head(same)
    state = _state(weights, same, head)
    load_weights(same, state, (head,), str(weights))
    return Pretrained(str(weights), same, _general(model, head, state) if f"{head}.weight" in state else None)


def hub_name(model: nn.Module, reference: str | None) -> str | None:
    """Return the name under which a library has pretrained weights of a model's architecture; None = not known.

    Args:
        model: an unwrapped model.
        reference: the name that the model was made by, if any.
    """
    if reference is not None and reference.startswith(LIBRARIES):
        return reference
    config = getattr(model, "pretrained_cfg", None)
    architecture = config.get("architecture") if isinstance(config, dict) else None
    return None if architecture is None else f"timm/{architecture}"


def _state(weights: str | Path, model: nn.Module, head: str) -> dict[str, Tensor]:
    """Return the weights under the keys of the model."""
    if str(weights).startswith(LIBRARIES):
        return load_model(str(weights), "default")[0].state_dict()
    return fit_checkpoint(read_checkpoint(locate(str(weights), "pretrained")), model, (head,)).state


def _general(model: nn.Module, head: str, state: dict[str, Tensor]) -> nn.Module:
    """Return the network with the head that the weights have."""
    general = copy.deepcopy(unwrap(model))
    weight = state[f"{head}.weight"]
    owner, _, name = head.rpartition(".")
    bias = f"{head}.bias" in state
    setattr(general.get_submodule(owner), name, nn.Linear(weight.shape[1], weight.shape[0], bias=bias))
    load_weights(general, state, (), "pretrained")
    device = next(unwrap(model).parameters()).device
    return general.to(device, torch.float32).eval()
