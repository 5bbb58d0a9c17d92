"""Work that several processes share: each one does its part of a list, and all of them have the results of the whole list.

The processes are those that torchrun started, on one machine or several. They exchange results through the store by which
torchrun lets them find each other. No process group of `torch.distributed` is formed: what a process does on its own, such
as a training, does not wait for the others.

An error of one process is an error of all. Each process looks for errors of the others before each batch (`check`) and while
it waits.
"""

import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sightline import errors
from sightline._core.processes import Launched, is_first_process, launched
from sightline.errors import RunFailedError, SightlineError

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")
R = TypeVar("R")

PIECE = 2**20  # bytes of one message; a store takes at most 8 MiB
WAIT = 0.05  # seconds between two looks at the store
PATIENCE = 10.0  # seconds in which the others read the last message
MEETING = 1800.0  # seconds in which all processes arrive
MEETINGS = 3  # how often a process goes to meet the others, each time at a store that ended before all had arrived
HEARD = "another process has reported this error"


class Processes:
    """The processes that share the work; by default this one alone.

    Args:
        rank: Number of this process, in 0 .. size - 1.
        size: Number of processes.
        local_rank: Number of this process on its machine, which chooses the GPU.
        store: What the processes exchange messages by; None for one process.

    Attributes:
        told: Whether this process was the first one to report an error, and must tell the user about it.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: "Store | None" = None) -> None:
        self.rank, self.size, self.local_rank, self._store = rank, size, local_rank, store
        self.told = False
        self._blocks: list[str] = []
        # Of messages, in each open block: after an error in a block, all processes count on from the same number.
        self._numbers = [0]
        self._sent: list[str] = []

    @property
    def is_first(self) -> bool:
        """Whether this process writes outputs and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this process: every `size`-th, from the `rank`-th on."""
        return items[self.rank :: self.size]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all processes leave this block in the same way: each one without an error, or each one with an error.

        Raises:
            SightlineError: Another process has an error, whose type and message this one gets.
        """
        if self._store is None:
            yield
            return
        block = self._next("error")
        self._blocks.append(block)
        self._numbers.append(0)
        try:
            yield
            self.join([])
        except BaseException as error:
            if HEARD not in getattr(error, "__notes__", ()):
                self._tell(block, error)
            raise
        finally:
            self._numbers.pop()
            self._blocks.pop()

    def check(self) -> None:
        """Raise the error of another process, if one has reported an error.

        Raises:
            SightlineError: The type and the message are those of the other process.
        """
        for block in self._blocks:
            if self._is_there(block):
                rank, kind, message = json.loads(self._asked(partial(_get, key=block)))
                raise _heard(kind, f"process {rank + 1} of {self.size}: {message}")

    def join(self, own: Sequence[T]) -> list[T]:
        """Return the results of all processes, in the order of the items that `share` divided.

        Args:
            own: The results of this process for its items, in their order. Any objects that can be pickled.
        """
        if self._store is None:
            return list(own)
        name = self._next("results")
        before, self._sent = self._sent, self._send(f"{name}/{self.rank}", list(own))
        parts = [own if rank == self.rank else self._receive(f"{name}/{rank}") for rank in range(self.size)]
        for key in before:  # all have sent the next results, and so have read these
            self._asked(lambda store: store.delete_key(key))  # noqa: B023
        total = sum(map(len, parts))
        if any(len(part) != len(range(rank, total, self.size)) for rank, part in enumerate(parts)):
            raise RunFailedError(
                f"the processes have {[len(part) for part in parts]} results; expected equal shares. Do all machines have the "
                "same data and the same version?"
            )
        return [parts[place % self.size][place // self.size] for place in range(total)]

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Do the work of this process; return the results for all items, in their order, in each process.

        Raises:
            SightlineError: What the work of any process raises.
        """
        with self.together():
            own = []
            for item in self.share(items):
                self.check()
                own.append(work(item))
            return self.join(own)

    def once(self, function: Callable[[], T]) -> T:
        """Call a function in the first process alone; return its result in each process.

        Raises:
            SightlineError: What the function raises, in each process.
        """
        if self._store is None:
            return function()
        name = self._next("result")
        with self.together():
            if not self.is_first:
                found: T = self._receive(name)
                return found
            result = function()
            self._send(name, result)
            return result

    def claim(self, name: str) -> bool:
        """Return whether this process is the first one to claim this name."""
        return self._store is None or self._asked(lambda store: store.add(f"claim/{name}", 1)) == 1

    def announce(self, name: str, value: Any) -> None:
        """Give a value a name, under which all processes find it."""
        self._send(f"announced/{name}", value)

    def announced(self, name: str) -> Any:
        """Return the value that a process has given this name; None = not yet."""
        key = f"announced/{name}"
        return self._receive(key) if self._is_there(key) else None

    def leave(self) -> None:
        """Wait until the last messages are read, which the first process may hold, and until it knows of an error.

        The first process tells the user about the error; this one only if the first one does not answer in time.
        """
        awaited = [rank for rank in range(self.size) if (rank and self.is_first) or (not rank and self.told)]
        until = time.monotonic() + PATIENCE
        with suppress(SightlineError):
            self._asked(lambda store: store.set(f"left/{self.rank}", ""))
            while not all(self._is_there(f"left/{rank}") for rank in awaited):
                if time.monotonic() > until:
                    return
                time.sleep(WAIT)
        self.told = False

    def _next(self, what: str) -> str:
        self._numbers[-1] += 1
        return f"{'.'.join(map(str, self._numbers))}/{what}"

    def _send(self, name: str, value: Any) -> list[str]:
        """Send a value, and return the keys that it takes in the store."""
        content = pickle.dumps(value)
        pieces = {f"{name}/{number}": start for number, start in enumerate(range(0, len(content), PIECE))}
        for key, start in pieces.items():
            self._asked(lambda store: store.set(key, content[start : start + PIECE]))  # type: ignore[arg-type]  # noqa: B023
        self._asked(lambda store: store.set(name, str(len(pieces))))  # last: a process that sees it finds the pieces
        return [*pieces, name]

    def _receive(self, name: str) -> Any:
        while not self._is_there(name):
            self.check()
            time.sleep(WAIT)
        pieces = [f"{name}/{number}" for number in range(int(self._asked(lambda store: store.get(name))))]
        return pickle.loads(b"".join(self._asked(partial(_get, key=key)) for key in pieces))

    def _tell(self, block: str, error: BaseException) -> None:
        """Report an error; the first report of a block counts."""
        kind = next((each for each in type(error).mro() if each.__module__ == errors.__name__), RunFailedError).__name__
        text = str(error) or type(error).__name__
        report = json.dumps([self.rank, kind, text])
        with suppress(SightlineError):
            self.told |= self._asked(lambda store: store.compare_set(block, "", report)) == report.encode()

    def _is_there(self, key: str) -> bool:
        return bool(self._asked(lambda store: store.check([key])))

    def _asked(self, ask: Callable[["Store"], Any]) -> Any:
        assert self._store is not None
        try:
            return ask(self._store)
        except RuntimeError as error:  # the store is in the first process, or in torchrun on its machine
            raise _heard("RunFailedError", "the first process, or torchrun on its machine, has ended") from error


def _get(store: "Store", key: str) -> bytes:
    return store.get(key)


def _heard(kind: str, message: str) -> SightlineError:
    error: SightlineError = getattr(errors, kind)(message)
    error.add_note(HEARD)
    return error


_current = Processes()
_formed = 0


def processes() -> Processes:
    """Return the processes that share the work here: this one alone, unless `several_processes` is entered."""
    return _current


@contextmanager
def several_processes(place: Launched | None = None) -> Iterator[Processes]:
    """Let the processes that torchrun started share the work inside; a process that it did not start works alone.

    Args:
        place: Which process this is, if a launcher that does not set RANK and WORLD_SIZE has started it. MASTER_ADDR and
            MASTER_PORT say where the processes meet, as for the method `env://` of `torch.distributed`.

    Raises:
        SightlineError: One of the processes fails; then all fail.
    """
    place = place or launched()
    if place is None:
        yield _current
        return
    formed = _form(place)
    try:
        with _sharing(formed), formed.together():
            yield formed
    finally:
        formed.leave()
        _current.told = formed.told


@contextmanager
def alone() -> Iterator[None]:
    """Let this process work without the others inside."""
    with _sharing(Processes()):
        yield


def reports_errors() -> bool:
    """Return whether this process tells the user about an error that ends all processes."""
    return is_first_process() or _current.told


@contextmanager
def _sharing(group: Processes) -> Iterator[None]:
    global _current
    before, _current = _current, group
    try:
        yield
    finally:
        _current = before


def _form(place: Launched) -> Processes:
    """Let the processes meet.

    Where no torchrun keeps the store, the first process does, and the store of what came before, such as a training, may last
    for a moment. A process that has come to that store sees it end, and meets the others again.
    """
    global _formed
    _formed += 1
    until = time.monotonic() + MEETING
    for _ in range(MEETINGS - 1 if place.rank else 0):
        with suppress(RuntimeError):  # such as: the connection was closed
            return Processes(*place, _meet(place, until))
    return Processes(*place, _meet(place, until))


def _meet(place: Launched, until: float) -> "Store":
    """Return the store at which the first process is, too."""
    from torch.distributed import PrefixStore, rendezvous

    patience = timedelta(seconds=max(1, until - time.monotonic()))
    found, _, _ = next(rendezvous("env://", place.rank, place.size, timeout=patience))
    store = PrefixStore(f"sightline/{_formed}", found)
    if place.rank == 0:
        store.set("met", "")
    while not store.check(["met"]):
        time.sleep(WAIT)
    return store
