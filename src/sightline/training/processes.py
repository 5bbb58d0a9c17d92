"""What several processes must do together, so that none waits for another or goes its own way."""

import os
from collections.abc import Callable, Iterable

import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from sightline.errors import SightlineError


def check_processes(processes: int, how: str) -> None:
    """Reject another number of processes than a launcher started.

    Args:
        processes: how many are asked for.
        how: the arguments that ask for them, for the message.

    Raises:
        SightlineError: the variable WORLD_SIZE is not that number, or another variable of a launcher is not a number.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        value = os.environ.get(name, "0").strip()
        harmless = not value and not name.startswith("SLURM")  # Fabric reads those of SLURM even if they are empty
        if not value.isdecimal() and not harmless:
            raise SightlineError(f"the variable {name} is {value!r}; expected a whole number, or no such variable")
    given = os.environ.get("WORLD_SIZE", "").strip()
    if not given:
        return
    if not given.isdecimal():
        raise SightlineError(
            f"the variable WORLD_SIZE is {given!r}; expected the number of processes, or no such variable"
        )
    if int(given) != processes:
        raise SightlineError(f"{given} processes were launched; {how} makes {processes}")


def on_rank_zero(fabric: Fabric, action: Callable[[], None]) -> str | None:
    """Write something on the first process; what went wrong there, told to every process."""
    problem = None
    if fabric.is_global_zero:
        try:
            action()
        except OSError as error:  # UnwritableError, and whatever a logger raises
            problem = str(error)
    return fabric.broadcast(problem)


def share(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's tensors, as of BatchNorm, so that all validate the model that is saved."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
