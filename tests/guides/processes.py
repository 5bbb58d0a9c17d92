"""What a test needs to compare two processes with one."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import sightline as sl

WORLD = 2


def in_two(work: Callable[[int, str], None], folder: Path) -> None:
    """Call `work(rank, folder)` in two processes, which have torch already where the fault suite has begun its server."""
    mp.start_processes(work, (str(folder),), nprocs=WORLD, start_method="forkserver")


def join(rank: int, folder: str) -> None:
    """Make this process one of the two. They meet by a file, since another process may take a port that was free."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)


def share(batch: sl.Batch, rank: int) -> sl.Batch:
    """The first or the second half of a batch."""
    half = slice(rank * len(batch) // WORLD, (rank + 1) * len(batch) // WORLD)
    return sl.Batch(**{name: None if tensor is None else tensor[half] for name, tensor in vars(batch).items()})


def gradients_of(model: nn.Module) -> list[Tensor]:
    """The gradient of every parameter, zero where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
