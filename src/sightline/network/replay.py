"""A second forward pass within a training step that draws the same random numbers as the first."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sightline.network.tap import StillStatistics


class Replay:
    """The random state before a step's forward pass, for further passes of the same step.

    Args:
        device: The device that the model runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._state = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    @contextmanager
    def again(self, model: nn.Module) -> Iterator[None]:
        """While entered, dropout repeats its draws, and batch norm does not update its statistics."""
        devices = [] if self._state is None else [self._device]
        with torch.random.fork_rng(devices, device_type=self._device.type), StillStatistics(model):
            torch.set_rng_state(self._cpu)
            if self._state is not None:
                torch.get_device_module(self._device).set_rng_state(self._state, self._device)
            yield
