"""Cells of tables and captions of images, as the reports of all studies write them."""

from collections.abc import Sequence
from statistics import fmean, stdev

import torch
from torch import Tensor

PaperValue = float | tuple[float, float]
"""A value that a paper prints, or its mean and standard deviation."""


def in_brackets(paper_value: PaperValue | None) -> str:
    """Return the paper's value with the paper's own digits, in square brackets after a space; "" without a value."""
    if paper_value is None:
        return ""
    parts = paper_value if isinstance(paper_value, tuple) else (paper_value,)
    return f" [{' ± '.join(map(repr, parts))}]"


def mean_and_spread(values: Sequence[float], paper_value: PaperValue | None = None, form: str = ".3f") -> str:
    """Return the mean, the standard deviation of several values, and the paper's value in square brackets."""
    printed = in_brackets(paper_value)
    if not values:
        return f"…{printed}"
    spread = f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{spread}{printed}"


def milliseconds(value: float) -> str:
    """Return a time with two decimals below 100."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def wait(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def to_bytes(values: Tensor) -> Tensor:
    """Return values in [0, 1] as uint8, on the CPU."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def caption(name: str, probability: float) -> str:
    """Return a class and its probability, in the width of an image."""
    return f"{name if len(name) <= 28 else name[:27] + '…'}, {probability:.1%}"
