"""What several kinds of studies share."""

import torch
from torch import Tensor


def milliseconds(value: float) -> str:
    """A time with the digits that mean something."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def to_bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8, on the CPU."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def caption(name: str, probability: float) -> str:
    """A class and its probability, in the width of a picture."""
    return f"{name if len(name) <= 28 else name[:27] + '…'}, {probability:.1%}"
