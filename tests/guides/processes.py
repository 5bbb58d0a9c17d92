"""What a test needs to compare two processes with one."""

import os
import socket

import torch
import torch.distributed as dist
from torch import Tensor, nn

import sightline as sl

WORLD = 2


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join(rank: int, port: int) -> None:
    """Make this process one of the two."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)


def share(batch: sl.Batch, rank: int) -> sl.Batch:
    """The first or the second half of a batch."""
    half = slice(rank * len(batch) // WORLD, (rank + 1) * len(batch) // WORLD)
    return sl.Batch(**{name: None if tensor is None else tensor[half] for name, tensor in vars(batch).items()})


def gradients_of(model: nn.Module) -> list[Tensor]:
    """The gradient of every parameter, zero where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
