"""A study's runs shared by the processes that torchrun started: each one does the next run that nobody does yet.

All processes write into the folder of the study, which must be the same one on all machines. The first process writes the
tables.
"""

import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import torch

from sightline import errors
from sightline._core.processes import without_launcher
from sightline._core.shared_work import WAIT, Processes, alone
from sightline.errors import MissingFileError, OutputInUseError, SightlineError, UnwritableError
from sightline.studies.folder import StudyFolder
from sightline.studies.spreading import Outcome, Prefixed
from sightline.studies.study import Part


def share(
    folder: StudyFolder,
    missing: Sequence[str],
    work: Callable[[str], Part],
    place: torch.device,
    group: Processes,
    show: Callable[[str], None],
) -> Generator[Outcome, None, None]:
    """Do parts that no other process does, each one after those that it needs; yield what became of each part, as it ends.

    Args:
        folder: Of the study, begun.
        missing: The parts to do, in the order of work.
        work: Does a part.
        place: The device of this process.
        group: The processes.
        show: Called with what is being done.
    """
    waiting, taken = list(missing), set[str]()
    while waiting:
        ended = [name for name in waiting if group.announced(name) is not None]
        for name in ended:
            waiting.remove(name)
            kind, message = group.announced(name)
            yield name, getattr(errors, kind)(message) if kind else folder.read(name)
        for name in [name for name in waiting if name not in taken]:
            needs = folder.study.needs(name)
            if lacking := [need for need in needs if need in folder.missing]:
                taken.add(name)
                group.announce(name, ("MissingFileError", folder.missing[lacking[0]]))
            elif not any(need in waiting for need in needs):
                taken.add(name)
                if group.claim(name):
                    show(name)
                    group.announce(name, _do(folder, name, work, place))
                    break  # look first at what the others have ended since
        else:
            if not ended:
                group.check()
                time.sleep(WAIT)


def _do(folder: StudyFolder, name: str, work: Callable[[str], Part], place: torch.device) -> tuple[str, str]:
    """Do a part, and return the type and the message of its error; the type is empty if the part was kept."""
    try:
        with alone(), without_launcher(), _named_lines(name):
            folder.keep(name, work, place)
    except (UnwritableError, OutputInUseError):
        raise
    except SightlineError as error:
        return "MissingFileError" if isinstance(error, MissingFileError) else "SightlineError", str(error)
    return "", ""


@contextmanager
def _named_lines(name: str) -> Iterator[None]:
    """Let each line on the terminal begin with the name of the part, because several processes write there."""
    before, sys.stderr = sys.stderr, Prefixed(sys.stderr, f"{name}: ")
    try:
        yield
    finally:
        sys.stderr = before
