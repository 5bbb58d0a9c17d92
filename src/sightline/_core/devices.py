"""Where tensors live."""

import torch


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the named device; None = the first GPU if there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
