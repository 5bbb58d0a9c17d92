"""What several processes must do together, so none waits for another or goes its own way."""

from collections.abc import Callable, Iterable

import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor


def on_rank_zero(fabric: Fabric, action: Callable[[], None], expected: type[Exception] = OSError) -> str | None:
    """Do something on the first process; what went wrong there, told to every process."""
    problem = None
    if fabric.is_global_zero:
        try:
            action()
        except expected as error:  # OSError: UnwritableError, and errors of a logger
            problem = str(error)
    return fabric.broadcast(problem)


def share(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's tensors, as of BatchNorm, so all validate the model that is saved."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
