"""Sums and failures over the processes of a distributed run; with a single process, nothing changes."""

import torch
import torch.distributed as dist
from torch import Tensor

from sightline.errors import SightlineError


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first_process() -> bool:
    """Return whether this is the process that logs."""
    return world_size() == 1 or dist.get_rank() == 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes, and return it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def raise_everywhere(problem: SightlineError | None, device: torch.device, message: str) -> None:
    """Raise on every process if one has a problem, so that none waits for the others forever.

    Args:
        problem: The error of this process, raised here; None if it has none.
        device: The device that processes share tensors on.
        message: The error of the processes that have no problem themselves.
    """
    failed = sum_over_processes(torch.tensor(float(problem is not None), device=device))
    if problem is not None:
        raise problem
    if failed:
        raise SightlineError(message)
