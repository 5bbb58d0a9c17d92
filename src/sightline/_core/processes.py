"""Which of several processes this is, by the variables that torchrun, SLURM and Fabric set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sightline.errors import SightlineError

_RANKS = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID"}
"""Variables with the number of a process, with the variable of SLURM that a job may have copied it from."""


_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


class LauncherError(SightlineError):
    """The variables of a launcher contradict each other or the arguments."""


def is_first_process() -> bool:
    """Return whether this process is the first one.

    Raises:
        LauncherError: RANK or LOCAL_RANK is left over from a launcher that has not started this process, or is not a number.
    """
    ranks = {name: _rank(name, copied) for name, copied in _RANKS.items()}
    of_slurm = os.environ.get("SLURM_PROCID", "").strip()
    return next((rank for rank in (ranks["RANK"], of_slurm, ranks["LOCAL_RANK"]) if rank), "0") == "0"


class Launched(NamedTuple):
    """Which of the processes that torchrun started this is.

    Attributes:
        rank: Its number, in 0 .. size - 1.
        size: How many there are, two or more.
        local_rank: Its number on its machine.
    """

    rank: int
    size: int
    local_rank: int


def launched() -> Launched | None:
    """Return which process this is; None if torchrun, or a launcher that sets RANK and WORLD_SIZE as it does, started one only.

    Raises:
        LauncherError: As for `is_first_process`.
    """
    size, rank = _launched(), os.environ.get("RANK", "").strip()
    if size in (None, 1) or not rank:
        return None
    is_first_process()
    return Launched(int(rank), size, int(os.environ.get("LOCAL_RANK", "").strip() or rank))


@contextmanager
def without_launcher() -> Iterator[None]:
    """Hide the variables of torchrun inside: what is called there works as without torchrun."""
    hidden = {name: os.environ[name] for name in os.environ if name in _OF_TORCHRUN or name.startswith("TORCHELASTIC_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def check_processes(processes: int, how: str) -> None:
    """Reject another number of processes than a launcher started.

    Args:
        processes: how many are asked for.
        how: the arguments that ask for them, for the message.

    Raises:
        LauncherError: the variable WORLD_SIZE is not that number, another variable is not a number, or one is left over
            from a launcher that has not started this process.
    """
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        _whole_number(name, os.environ.get(name, "0").strip())  # Fabric reads those of SLURM even if they are empty
    is_first_process()
    launched = _launched()
    if launched not in (None, processes):
        raise LauncherError(
            f"{launched} processes were launched (WORLD_SIZE); {how} makes {processes}. If no launcher started this process, "
            "unset WORLD_SIZE, RANK and LOCAL_RANK"
        )


def _rank(name: str, of_slurm: str) -> str:
    """Return the number of this process in a variable; "" where it is not set.

    Raises:
        LauncherError: it is not a number, or no launcher has started as many processes.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        return ""
    rank, launched = _whole_number(name, value), _launched()
    if launched is None and rank and value != os.environ.get(of_slurm, "").strip():
        raise LauncherError(
            f"the variable {name} is {value}, but WORLD_SIZE is not set, so no launcher has started this process; unset "
            f"{name}, or set WORLD_SIZE to the number of processes"
        )
    if launched is not None and rank >= launched:
        raise LauncherError(
            f"the variable {name} is {value}, but WORLD_SIZE is {launched}; expected a number below it. If no launcher started "
            "this process, unset both"
        )
    return str(rank)


def _launched() -> int | None:
    """Return how many processes a launcher says that it started; None where it says nothing."""
    value = os.environ.get("WORLD_SIZE", "").strip()
    return _whole_number("WORLD_SIZE", value, "the number of processes") if value else None


def _whole_number(name: str, value: str, expected: str = "a whole number") -> int:
    if not value.isdecimal():
        raise LauncherError(f"the variable {name} is {value!r}; expected {expected}, or no such variable")
    return int(value)
