"""A study's runs spread over several devices, a process for each.

Every process writes each part that it finishes, as a single process does. A kill therefore loses no finished part. A process
ends when the one that started it has ended.
"""

import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOBase
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TextIO

import torch

from sightline._core.allocator import keep_freed_memory
from sightline.errors import MissingFileError, OutputInUseError, RunFailedError, SightlineError, UnwritableError
from sightline.studies.folder import StudyFolder
from sightline.studies.study import Part, study_from_yaml

Outcome = tuple[str, Part | SightlineError]
"""A part's name, and the part or why it failed."""
PATIENCE = 20.0  # seconds in which a process that is told to stop records where its run is


def spread(
    folder: StudyFolder, missing: Sequence[str], places: Sequence[torch.device], show: Callable[[str], None]
) -> Generator[Outcome, None, None]:
    """Do parts in several processes, each part after those that it needs; yield what became of each, as it ends.

    Args:
        folder: Of the study, begun.
        missing: The parts to do, in the order of work.
        places: A device for each process.
        show: Called with what is being done.
    """
    waiting = list(missing)
    idle = [_Worker(folder, place) for place in places]
    busy: dict[Connection, _Worker] = {}
    try:
        while waiting or busy:
            for name in list(waiting):
                needs = folder.study.needs(name)
                if lacking := [need for need in needs if need in folder.missing]:
                    waiting.remove(name)
                    yield name, MissingFileError(folder.missing[lacking[0]])
                elif idle and not any(need in waiting or need in _doing(busy) for need in needs):
                    waiting.remove(name)
                    worker = idle.pop(0)
                    busy[worker.start(name)] = worker
            if not busy:
                continue
            show(", ".join(_doing(busy)))
            for connection in wait(list(busy)):
                worker = busy.pop(connection)  # type: ignore[call-overload]
                name = worker.doing
                error = worker.result()
                idle.append(worker)
                if isinstance(error, UnwritableError | OutputInUseError):
                    raise error
                yield name, folder.read(name) if error is None else error
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


@dataclass
class _Worker:
    """A process on a device, started with its first part, and again after it was killed.

    Attributes:
        folder: Of the study.
        place: The device.
        doing: The part that it does.
    """

    folder: StudyFolder
    place: torch.device
    doing: str = ""
    process: SpawnProcess | None = None

    def start(self, name: str) -> Connection:
        """Begin a part; the connection is readable when it has ended."""
        if self.process is None:
            context = get_context("spawn")  # CUDA does not survive a fork
            self._tasks, tasks = context.Pipe()
            lifeline, self._lifeline = context.Pipe(duplex=False)
            settings = (self.folder.path, self.folder.scale, str(self.place), torch.get_num_threads())
            self.process = context.Process(target=_work, args=(*settings, tasks, lifeline))
            self.process.start()
            tasks.close()
            lifeline.close()
        self.doing = name
        self._tasks.send(name)
        return self._tasks

    def result(self) -> SightlineError | None:
        """Return how the part ended; None = it was kept."""
        assert self.process is not None
        try:
            failure: tuple[type[SightlineError], str] | None = self._tasks.recv()
        except (EOFError, OSError):
            self.process.join()
            code, self.process = self.process.exitcode, None
            return RunFailedError(
                f"the process on {self.place} ended with exit code {code} while it did {self.doing}; give the same command "
                "again, which resumes"
            )
        return None if failure is None else failure[0](failure[1])

    def stop(self) -> None:
        """End the process; an unfinished run records where it is."""
        if self.process is None:
            return
        with suppress(OSError):
            self._tasks.close()
        self.process.terminate()
        self.process.join(PATIENCE)
        self._lifeline.close()
        self.process.join(PATIENCE)
        with suppress(ValueError):
            self.process.close()


def _doing(busy: dict[Connection, _Worker]) -> list[str]:
    return [worker.doing for worker in busy.values()]


def _work(path: Path, scale: float, device: str, threads: int, tasks: Connection, lifeline: Connection) -> None:
    """Do one part after another, as the first process names them."""
    threading.Thread(target=_end_with_the_first_process, args=(lifeline,), daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(threads)  # as many as one process has: sums of another number of threads differ in rounding
    work: Callable[[str], Part] | None = None
    with suppress(EOFError, OSError, KeyboardInterrupt):
        folder = StudyFolder(path, study_from_yaml(path / "study.yaml"), scale)
        while True:
            name = tasks.recv()
            sys.stderr = Prefixed(sys.__stderr__, f"{name}: ")
            try:
                work = work or folder.study.prepare(torch.device(device), path)
                folder.keep(name, work, torch.device(device))
                tasks.send(None)
            except SightlineError as error:
                kind = type(error) if type(error).__module__ == SightlineError.__module__ else SightlineError
                tasks.send((kind, str(error)))


def _end_with_the_first_process(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


class Prefixed(TextIOBase):
    """A stream whose lines begin with the name of a part, because several processes write to one terminal."""

    def __init__(self, stream: TextIO | None, prefix: str) -> None:
        super().__init__()
        self._stream, self._prefix, self._at_start = stream, prefix, True

    def write(self, text: str) -> int:
        """Write text; every line of it gets the prefix."""
        for line in text.splitlines(keepends=True):
            shown = f"{self._prefix}{line}" if self._at_start else line
            self._at_start = line.endswith("\n")
            if self._stream is not None:
                self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        if self._stream is not None:
            self._stream.flush()

    def isatty(self) -> bool:
        """No progress bars: several processes would overwrite each other's."""
        return False
