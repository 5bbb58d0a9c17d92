"""Runs a command in a process of its own that dies, or meets a full disk, at a chosen file operation or moment.

Nothing of sightline is replaced: an audit hook of Python sees every file that is opened for writing, renamed or removed.
"""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from kept_imports import LOADED

HERE = str(Path(__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])  # where the fork server looks
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["kept_imports"])
CHANGES = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "os.truncate": (0,),
           "sqlite3.connect": (0,)}  # fmt: skip
RANDOM = re.compile(r"[0-9a-f]{12}(?=\.tmp|\.old)")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        kill_at: the file operation before which the process dies, from 0.
        full_at: the file operation from which on the disk is full.
        kill_after: seconds after which the process dies.
        keep: a folder that gets a copy of the state before each file operation, by number; equal states are kept once.
    """

    kill_at: int | None = None
    full_at: int | None = None
    kill_after: float | None = None
    keep: Path | None = None


@dataclass(frozen=True)
class Done:
    """What became of a command.

    Attributes:
        code: exit code; negative = the signal that ended it.
        said: what it printed to both streams.
        operations: how many file operations it made.
    """

    code: int
    said: str
    operations: int


def run(folder: Path, *arguments: object, fault: Fault | None = None) -> Done:
    """Run `sightline ARGUMENTS` in a folder."""
    return finish(start(folder, *arguments, fault=fault))


def start(folder: Path, *arguments: object, fault: Fault | None = None) -> "Child":
    """Begin `sightline ARGUMENTS` in a folder."""
    folder.mkdir(exist_ok=True)
    return Child(folder, [str(each) for each in arguments], fault or Fault())


class Child:
    """A command that runs."""

    count = 0

    def __init__(self, folder: Path, arguments: list[str], fault: Fault) -> None:
        Child.count += 1
        self.said = folder.parent / f"said-{os.getpid()}-{Child.count}.txt"
        self.operations = CONTEXT.Value("l", 0, lock=False)
        inside = (folder, arguments, fault, self.said, self.operations)
        self.process = CONTEXT.Process(target=_inside, args=inside)
        self.process.start()


def finish(child: Child) -> Done:
    """Wait for a command."""
    child.process.join(600)
    assert child.process.exitcode is not None, f"still running: {child.said.read_text()}"
    done = Done(child.process.exitcode, child.said.read_text(), child.operations.value)
    child.said.unlink()
    return done


def _inside(folder: Path, arguments: list[str], fault: Fault, said: Path, operations) -> None:
    assert LOADED
    output = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    root, owner = f"{folder.resolve()}{os.sep}", os.getpid()
    known: set[bytes] = set()
    keeping, one_at_a_time = threading.local(), threading.Lock()

    def keep(number: int) -> None:
        """Copy a state; while another thread is inside an operation that began before, copy again until nothing moves."""
        with one_at_a_time:
            keeping.now = True
            place = fault.keep / str(number) / folder.name
            try:
                while True:
                    with contextlib.suppress(OSError):  # a file was renamed or removed while it was read
                        if (state := digest(folder)) in known:
                            return
                        shutil.copytree(folder, place, symlinks=True)
                        if digest(place) == state:
                            known.add(state)
                            return
                    shutil.rmtree(place.parent, ignore_errors=True)
            finally:
                keeping.now = False

    def count(name: str, given: tuple) -> None:
        if getattr(keeping, "now", False):
            return
        if name == "open":
            paths = (given[0],) if isinstance(given[2], int) and given[2] & WRITES else ()
        else:
            paths = tuple(given[place] for place in CHANGES.get(name, ()))
        if not any(_below(path, root) for path in paths) or os.getpid() != owner:
            return
        number = operations.value
        operations.value += 1
        if fault.keep is not None:
            keep(number)
        if number == fault.kill_at:
            os._exit(99)
        if fault.full_at is not None and number >= fault.full_at and name in ("open", "os.mkdir", "os.truncate"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0]))

    sys.addaudithook(count)
    if fault.kill_after is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, fault.kill_after)
    from sightline.cli import main

    sys.argv = ["sightline", *arguments]
    main()


def digest(folder: Path) -> bytes:
    """Return a digest of all names and contents below a folder, without the random part of temporary names."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        found.update(RANDOM.sub("", str(file.relative_to(folder))).encode())
        found.update(file.read_bytes() if file.is_file() else b"folder")
    return found.digest()


def _below(path: object, root: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(root)
