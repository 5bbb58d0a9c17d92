"""Sums and failures over the processes of a distributed run; with a single process, nothing changes."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def raising_everywhere(device: torch.device, message: str) -> Iterator[None]:
    """Raise on every process if one raises SightlineError inside, so none waits for the others forever.

    Args:
        device: The device that processes share tensors on.
        message: The error of the processes that have no problem themselves.
    """
    problem: SightlineError | None = None
    try:
        yield
    except SightlineError as error:
        problem = error
    failed = sum_over_processes(torch.tensor(float(problem is not None), device=device))
    if problem is not None:
        raise problem
    if failed:
        raise SightlineError(message)


@contextmanager
def process_group_ended() -> Iterator[None]:
    """End the group of processes that is formed inside: the threads of one that is left abort the interpreter at its exit."""
    before = _has_group()
    try:
        yield
    except BaseException:
        # NCCL would wait for processes that may have failed.
        if _has_group() and not before and dist.get_backend() == "gloo":
            dist.destroy_process_group()
        raise
    if _has_group() and not before:
        dist.destroy_process_group()


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()
