"""Memory that the C library keeps for the next tensor."""

import ctypes
import os
import platform

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # parameters of mallopt(3)


def keep_freed_memory() -> bool:
    """Let glibc reuse the memory of freed tensors, where it would give it back to the system.

    By default, glibc asks the system for new memory for every tensor above 32 MB. The system then clears each page when it
    is first written, which can take as long as the forward pass itself. Memory that a process has used stays with the
    process until it ends. The setting holds for the whole process, so commands make it and the library does not.
    Environment variables of the allocator take precedence.

    Returns:
        Whether the setting was made: not on systems without glibc, and not where the environment chooses the allocator.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    chosen |= bool({"LD_PRELOAD", "GLIBC_TUNABLES"} & os.environ.keys())
    if chosen or platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(MMAP_MAX, 0) and library.mallopt(TRIM_THRESHOLD, 2**31 - 1))
