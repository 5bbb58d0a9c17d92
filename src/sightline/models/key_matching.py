"""Which of a checkpoint's state dicts, and which part of its names, is a model's.

Nothing is guessed: if two ways fit and their values differ, it is an error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.models.checkpoint import Checkpoint

WRAPPERS = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
)  # parts of names that are never a model's own
COUNTERS = ("total_ops", "total_params")  # of a profiler
COUNT = "num_batches_tracked"  # of BatchNorm; torch before 0.4.1 has none


@dataclass(frozen=True)
class Fit:
    """One way in which a state dict fits a model.

    Attributes:
        place: of the state dict in the file.
        strip: what the names in the file begin with, and those of the model do not.
        add: what the names of the model begin with, and those in the file do not.
        state: tensor by name, renamed.
        left_out: names in the file that are not part of the model.
    """

    place: str
    strip: str
    add: str
    state: dict[str, Tensor]
    left_out: list[str]

    def notes(self) -> list[str]:
        """Return in words what was unwrapped, renamed and left out."""
        found = []
        if self.place:
            found.append(f"the weights are those under {self.place}")
        if self.strip:
            found.append(f"{self.strip!r} was taken from the front of {len(self.state)} names")
        if self.add:
            found.append(f"{self.add!r} was put in front of {len(self.state)} names")
        if self.left_out:
            some = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            found.append(f"{len(self.left_out)} tensors that do not belong to the model were left out: {some}")
        return found


def fit_checkpoint(checkpoint: Checkpoint, model: nn.Module, head: Sequence[str]) -> Fit:
    """Return the state dict of a checkpoint with the names of a model.

    Args:
        checkpoint: what a file holds.
        model: an unwrapped model.
        head: names of the modules that may be missing or differ in shape.

    Returns:
        The one that fits. Where none fits, that with most names of the model, for an error that names what is wrong.

    Raises:
        SightlineError: several fit, and their values differ.
    """
    own = model.state_dict()
    body = {key: value for key, value in own.items() if key.rpartition(".")[0] not in head}
    states = {place: _without_wrappers(state) for place, state in checkpoint.states.items()}
    for shapes in (True, False):
        fits = [fit for place, state in states.items() for fit in _fits(place, state, body or own, shapes)]
        different = [fit for fit in fits if not _equal(fit, fits[0], body or own)]
        if different and shapes:
            raise SightlineError(_ambiguous(checkpoint, [fits[0], *different]))
        if fits:
            return fits[0]
    place = max(states, key=lambda place: len(states[place].keys() & own.keys()) or len(states[place]) / 1e9)
    return Fit(place, "", "", states[place], [])


def _fits(place: str, state: dict[str, Tensor], body: dict[str, Tensor], shapes: bool) -> Iterator[Fit]:
    """Yield each way in which all names of a model's body, with or without its head, are in a state dict."""
    body = {key: value for key, value in body.items() if not key.endswith(COUNT)} or body
    anchor = max(body, key=len)
    seen = set()
    for add in _common_fronts(list(body)):
        wanted = anchor[len(add) :]
        for strip in [key[: -len(wanted)] for key in state if key == wanted or key.endswith(f".{wanted}")]:
            if strip + wanted in seen:  # the same names, by way of a longer front on both sides
                continue
            pairs = {key: state.get(strip + key[len(add) :]) for key in body}
            if all(
                value is not None and (not shapes or value.shape == body[key].shape) for key, value in pairs.items()
            ):
                seen.add(strip + wanted)
                yield _renamed(place, state, strip, add)


def _renamed(place: str, state: dict[str, Tensor], strip: str, add: str) -> Fit:
    kept = {add + key[len(strip) :]: value for key, value in state.items() if key.startswith(strip)}
    counters = [key for key in kept if key.rpartition(".")[2] in COUNTERS]
    left_out = [key for key in state if not key.startswith(strip)] + counters
    return Fit(place, strip, add, {key: value for key, value in kept.items() if key not in counters}, left_out)


def _common_fronts(keys: list[str]) -> list[str]:
    """Return the prefixes that all names share, up to a dot, the empty one first."""
    parts = keys[0].split(".")[:-1]
    fronts = [".".join(parts[:length]) + "." for length in range(1, len(parts) + 1)]
    return ["", *(front for front in fronts if all(key.startswith(front) for key in keys))]


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the parts of names that torch.compile and other wrappers add."""
    if not any(part in key for key in state for part in WRAPPERS):
        return state
    return {".".join(part for part in key.split(".") if part not in WRAPPERS): value for key, value in state.items()}


def _equal(fit: Fit, other: Fit, body: dict[str, Tensor]) -> bool:
    return all(torch.equal(fit.state[key], other.state[key]) for key in body if not key.endswith(COUNT))


def _ambiguous(checkpoint: Checkpoint, fits: list[Fit]) -> str:
    """Return a message about weights that fit in several ways: their names, and how to keep one of them."""
    ways = [
        "".join([fit.place, f" {fit.strip}*" if fit.strip else ""]).strip() or "the names unchanged" for fit in fits
    ]
    number = max(range(len(fits)), key=lambda place: len(fits[place].strip))
    chosen = fits[number]
    source = str(checkpoint.path)
    load = (
        f"safetensors.torch.load_file({source!r})"
        if checkpoint.path.suffix == ".safetensors"
        else f"torch.load({source!r}, map_location='cpu', weights_only=True){chosen.place}"
    )
    return (
        f"weights: {len(fits)} sets of weights in {source} fit the model: {'; '.join(ways)}. Keep one of them, such as "
        f"{ways[number]}, by\n  state = {load}\n  state = {{key: value for key, value in state.items() if key.startswith("
        f"{chosen.strip!r})}}\n  torch.save(state, {f'{checkpoint.path.stem}-weights.pth'!r})"
    )
