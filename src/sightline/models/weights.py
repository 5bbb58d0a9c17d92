"""Weights from a file into a model: everything must fit, except for a head of another number of classes."""

import re

from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.models.attention_branch import restore_attention_branch
from sightline.models.checkpoint import Checkpoint
from sightline.models.gates import restore_gates
from sightline.models.key_matching import COUNT, fit_checkpoint
from sightline.models.two_branch import restore_two_branch

POSITION = re.compile(r"pos_|position|rel_pos")  # in the names of what depends on the size of the image


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint, head: tuple[str, ...]) -> list[str]:
    """Copy the weights of a checkpoint into a model, with the gates and branches that sightline adds.

    Args:
        model: changed in place.
        checkpoint: from `read_checkpoint`.
        head: names of the modules that may differ in shape.

    Returns:
        What was unwrapped, renamed, left out or dropped, in words.

    Raises:
        SightlineError: no weights in the checkpoint fit the model, or several do.
    """
    fit = fit_checkpoint(checkpoint, model, head)
    restore_gates(model, fit.state)
    restore_attention_branch(model, fit.state)
    restore_two_branch(model, fit.state)  # last, because it copies the model with its gates
    return fit.notes() + load_weights(model, fit.state, head, str(checkpoint.path))


def load_weights(model: nn.Module, state: dict[str, Tensor], head: tuple[str, ...], source: str) -> list[str]:
    """Copy a state dict into a model; head keys of another shape are dropped.

    Args:
        model: changed in place.
        state: name to tensor, as the model names them; see `fit_checkpoint`.
        head: names of the modules that may differ in shape.
        source: where the weights come from, for messages.

    Returns:
        What was dropped, in words.

    Raises:
        SightlineError: names a key that is missing, not known to the model, of another shape, or whose values are NaN.
    """
    own = model.state_dict()
    dropped = [
        key for key in state
        if key.rpartition(".")[0] in head and key in own and state[key].shape != own[key].shape
    ]  # fmt: skip
    problems = [f"{key} holds NaN" for key, value in state.items() if value.isnan().any()]
    problems += [f"{key} is missing" for key in own if key not in state and not key.endswith(COUNT)]
    problems += [f"{key} is not in the model" for key in state if key not in own]
    problems += [
        f"{key} has shape {tuple(state[key].shape)} and not {tuple(own[key].shape)}"
        for key in own
        if key in state and key not in dropped and state[key].shape != own[key].shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        remedy = _remedy(own, state, head)
        raise SightlineError(
            f"weights: {source} does not fit {type(model).__name__}: {'; '.join(problems[:5])}{more}. {remedy}"
        )
    model.load_state_dict({key: value for key, value in state.items() if key not in dropped}, strict=False)
    return [f"{' and '.join(sorted(dropped))} left random, for another number of classes"] if dropped else []


def _remedy(own: dict[str, Tensor], state: dict[str, Tensor], head: tuple[str, ...]) -> str:
    """Return what to do about weights that do not fit a model."""
    missing = [key for key in own if key not in state]
    if missing and all(key.rpartition(".")[0] in head for key in missing):
        return "The file has no head that tells classes apart: give the weights of the whole classifier"
    shared = [key for key in own if key in state]
    if (
        shared
        and len(shared) == len(own) == len(state)
        and all(
            own[key].shape == state[key].shape or POSITION.search(key)
            for key in shared
            if key.rpartition(".")[0] not in head
        )
    ):
        return (
            "They were trained with images of another size: give it by --size (image_size in a recipe, size= in Python)"
        )
    if shared:
        return "Give the weights of this very architecture, or name the model that they belong to"
    return f"No name of the file ({', '.join(list(state)[:2])}, ...) is one of the model: name the model that it belongs to"
