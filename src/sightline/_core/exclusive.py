"""Objects that one thread at a time may use."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Use:
    thread: int
    depth: int = 0


_changed = threading.Condition()
_uses: dict[int, _Use] = {}  # by the object's id, which stays unique while the object is used


@contextmanager
def exclusive(objects: Iterable[object]) -> Iterator[None]:
    """Wait until no other thread uses any of the objects, and keep other threads off all of them while entered.

    Two contexts exclude each other if they have one object in common: two wrappers around one network share the modules of
    the network. The thread that uses an object may enter again.
    """
    kept = list(objects)
    own = threading.get_ident()
    with _changed:
        _changed.wait_for(lambda: all((use := _uses.get(id(each))) is None or use.thread == own for each in kept))
        for each in kept:
            _uses.setdefault(id(each), _Use(own)).depth += 1
    try:
        yield
    finally:
        with _changed:
            for each in kept:
                use = _uses[id(each)]
                use.depth -= 1
                if use.depth == 0:
                    del _uses[id(each)]
            _changed.notify_all()


def _forget() -> None:
    """Forget, in a forked process, the uses of threads that exist only in the parent process."""
    global _changed
    _changed = threading.Condition()
    own = threading.get_ident()
    for key in [key for key, use in _uses.items() if use.thread != own]:
        del _uses[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
