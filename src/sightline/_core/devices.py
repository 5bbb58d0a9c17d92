"""Where tensors live."""

import torch

from sightline._core.shared_work import processes
from sightline.errors import SightlineError


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the named device; None = a GPU if there is one, else the CPU.

    Of several processes that share work, each one on a machine gets another GPU; without, it is the first GPU.

    Raises:
        SightlineError: there is no such device.
    """
    if device is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        group = processes()
        return (
            torch.device("cuda", group.local_rank % torch.cuda.device_count())
            if group.size > 1
            else torch.device("cuda")
        )
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise SightlineError(f"device is {device!r}; expected 'cpu', or a GPU such as 'cuda' or 'cuda:1'") from None
    module = getattr(torch, found.type, None)
    count = 0 if module is None or not hasattr(module, "device_count") else module.device_count()
    if (found.index or 0) >= count:
        there = f"{count} such devices" if count else "no such device"
        raise SightlineError(
            f"device is {str(device)!r}; PyTorch finds {there} here. Expected 'cpu', or a GPU that exists"
        )
    return found
