"""Weights from a file into a model: everything must fit, but for a head of another number of classes."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from sightline._core.git_lfs import refuse_pointer
from sightline._core.reading import read_tensors, reading
from sightline.errors import SightlineError

logger = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` or `.pth` file, on the CPU. No code is unpickled.

    Raises:
        SightlineError: no such file, another suffix, a damaged file, or one that holds more than tensors.
    """
    if not path.is_file():
        raise SightlineError(f"weights: there is no file {str(path)!r}; expected None, 'default' or a file")
    with reading(path, "give another file by weights"):
        refuse_pointer(path)
        if path.suffix == ".safetensors":
            return read_tensors(path)[0]
        if path.suffix in (".pth", ".pt"):
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state) if isinstance(state, dict) else state
            if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
                return state
            raise SightlineError(f"weights: {path} holds no state dict (a dict of name to tensor)")
    raise SightlineError(f"weights: {path} has the suffix {path.suffix!r}; expected .safetensors or .pth")


def load_weights(model: nn.Module, state: dict[str, Tensor], head: tuple[str, ...], source: str) -> None:
    """Copy a state dict into a model; head keys of another shape are dropped, with a logged note.

    Args:
        model: changed in place.
        state: name to tensor.
        head: names of the modules that may differ in shape.
        source: where the weights come from, for messages.

    Raises:
        SightlineError: names a key that is missing, not known to the model, of another shape, or whose values are NaN.
    """
    own = model.state_dict()
    dropped = [
        key for key in state
        if key.rpartition(".")[0] in head and key in own and state[key].shape != own[key].shape
    ]  # fmt: skip
    if dropped:
        logger.info("%s: %s left random, for another number of classes", source, " and ".join(sorted(dropped)))
    problems = [f"{key} holds NaN" for key, value in state.items() if value.isnan().any()]
    problems += [f"{key} is missing" for key in own if key not in state]
    problems += [f"{key} is not in the model" for key in state if key not in own]
    problems += [
        f"{key} has shape {tuple(state[key].shape)} and not {tuple(own[key].shape)}"
        for key in own
        if key in state and key not in dropped and state[key].shape != own[key].shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise SightlineError(f"weights: {source} does not fit {type(model).__name__}: {'; '.join(problems[:5])}{more}")
    model.load_state_dict({key: value for key, value in state.items() if key not in dropped}, strict=False)
