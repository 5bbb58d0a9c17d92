"""What a run needs to continue, in one safetensors file: tensors by name, and the rest as JSON in its header.

One file means one rename, so a kill at any moment leaves the last whole epoch. Nothing here pickles. The state of random
generators is not saved: they are seeded again by (seed, epoch, process) at the start of every epoch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from sightline._core.files import write_atomically
from sightline._core.reading import read_tensors, reading
from sightline.errors import SightlineError


@dataclass
class State:
    """Where a run stands after its last whole epoch.

    Attributes:
        epoch: finished epochs, over all stages.
        stage: the stage that comes next, from 0.
        stage_epoch: finished epochs of that stage.
        step: optimiser steps.
        images: images seen, over all processes.
        seconds: of training and validation, also before a resume.
        best: the best value so far of the metric that selects, with its epoch.
        patience: the best value in this stage of the metric that stops, with how often it has been measured since.
        data: each split's fingerprint.
        scaler: of 16-bit gradients.
    """

    epoch: int = 0
    stage: int = 0
    stage_epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best: tuple[float, int] | None = None
    patience: tuple[float, int] | None = None
    data: dict[str, str] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    def spent(self) -> dict[str, float]:
        """Return the time and memory that the run has used so far, for its record."""
        return {"steps": self.step, "images_seen": self.images, "seconds": round(self.seconds, 3)}


def write_weights(path: Path, state_dict: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors, and facts as JSON in the header, as one atomic unit; equal tensors and facts give equal bytes.

    Raises:
        RunFailedError: it cannot be written.
    """
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state_dict.items()}
    write_atomically(path, save(whole, {"sightline": json.dumps(facts)}))  # safetensors gives several keys any order


def write_state(
    path: Path,
    objectives: Iterable[nn.Module],
    optimizer: Optimizer | None,
    state: State,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all that a resumed run needs; `optimizer` and `average`, which a stage keeps, are None between two stages."""
    tensors = _distinct(objectives) | {f"average/{name}": tensor for name, tensor in (average or {}).items()}
    for index, values in (optimizer.state_dict()["state"] if optimizer else {}).items():
        tensors |= {f"optimizer/{index}/{key}": v for key, v in values.items() if isinstance(v, Tensor)}
    write_weights(path, tensors, asdict(state))


class Checkpoint:
    """A file that `write_state` wrote.

    Raises:
        SightlineError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        advice = "the run cannot be resumed without it; remove the run folder to start again"
        self._tensors, metadata = read_tensors(path, advice)
        with reading(path, advice):
            self.state = State(**json.loads(metadata["sightline"]))

    def restore_objectives(self, objectives: Iterable[nn.Module]) -> None:
        """Copy the saved tensors into the modules they came from."""
        objectives = list(objectives)
        if missing := sorted(_distinct(objectives).keys() - self._tensors.keys()):
            raise SightlineError(f"cannot resume: the checkpoint does not fit {missing[0]}")
        for number, objective in enumerate(objectives):
            prefix = f"objective/{number}/"
            own = {n.removeprefix(prefix): t for n, t in self._tensors.items() if n.startswith(prefix)}
            try:
                objective.load_state_dict(own, strict=False)  # what stages share is saved with the first
            except RuntimeError as error:
                raise SightlineError(f"cannot resume: the checkpoint does not fit ({error})") from error

    def restore_average(self, average: Mapping[str, Tensor]) -> None:
        """Give a stage the average of its weights back, where the checkpoint is inside the stage."""
        for name, tensor in average.items():
            if (saved := self._tensors.get(f"average/{name}")) is not None:
                tensor.copy_(saved)

    def restore_optimizer(self, optimizer: Optimizer) -> None:
        """Give an optimiser its moments back, where the checkpoint is inside its stage."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in self._tensors.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _distinct(objectives: Iterable[nn.Module]) -> dict[str, Tensor]:
    """Every tensor of some modules by name, once: the objectives of several stages share their model."""
    found: dict[int, tuple[str, Tensor]] = {}
    for number, objective in enumerate(objectives):
        for name, tensor in objective.state_dict(keep_vars=True).items():
            found.setdefault(id(tensor), (f"objective/{number}/{name}", tensor))
    return dict(found.values())
