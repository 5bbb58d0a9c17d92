"""What a module returned during a step's forward pass, for the losses of a guide that attached the module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class OutputRecorder:
    """Keeps the outputs of a module from a step's forward pass until the step's losses take them."""

    def __init__(self) -> None:
        self._outputs: list[Any] = []

    @contextmanager
    def record(self, module: nn.Module) -> Iterator[None]:
        """Record what the module returns while the context is entered."""
        self._outputs.clear()
        with module.register_forward_hook(lambda module, args, output: self._outputs.append(output)):
            yield

    def take(self) -> Any:
        """Return the first output, whose rows begin with the identity view, and forget all: they hold the step's graph."""
        first = self._outputs[0]
        self._outputs.clear()
        return first
