"""Models in eval mode, and hooks, for one thread at a time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from torch import nn

from sightline.network.branch import own_modules
from sightline.network.forms import eager, is_exported, naming_inputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and give every module its own flag back afterwards, exceptions included.

    Meanwhile, its compiled parts run as plain PyTorch, and the model belongs to this thread: another thread that enters with
    one of the model's modules waits.
    """
    with eager(model):
        flags = {module: module.training for module in model.modules() if hasattr(module, "training")}  # frozen: none
        try:
            if any(map(is_exported, flags)):  # these reject `eval`
                for module in flags:
                    module.training = False
            else:
                model.eval()
            with naming_inputs(model):
                yield
        finally:
            for module, training in flags.items():
                module.training = training


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return the batch norms of a model, without those in what guides have added."""
    return [module for module in own_modules(model).values() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


_OWN = "_sightline_in_this_thread"
Hook = TypeVar("Hook", bound=Callable[..., Any])


def in_this_thread(hook: Hook) -> Hook:
    """Return a hook that acts on the calls of the present thread alone: others may use the model at the same time."""
    own = threading.get_ident()

    @wraps(hook)
    def act(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == own else None

    vars(act)[_OWN] = True
    return cast(Hook, act)


def is_own_hook(hook: Callable[..., Any]) -> bool:
    """Return whether `in_this_thread` made a hook."""
    return getattr(hook, _OWN, False)
