"""How much memory and disk are free."""

import shutil
from contextlib import suppress
from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes of memory that a process can still take, by the system and by the limit of its control group.

    None where the system does not say, as outside of Linux.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))))
    with suppress(OSError, ValueError):  # no limit is the word "max"
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found) if found else None


def in_units(size: float) -> str:
    """Return a number of bytes as text, in MB or GB of 10^6 and 10^9 bytes."""
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
