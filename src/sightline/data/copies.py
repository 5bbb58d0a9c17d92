"""Files that are in a data set more than once: one file by several paths, or several files of equal bytes."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

_HEAD = 16_384  # bytes; most files of one size differ here


def find_copies(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return, for every path whose content another path has too, one path that stands for them all.

    The path with the shortest name stands for the others, because copies that are added later mostly have longer names. Files
    that are missing or empty are no copies. Only files of one size are read, and most of those only at their beginning.
    """
    paths_of: dict[tuple[int, int], list[Path]] = defaultdict(list)  # by file, because links make several paths of one
    content: dict[tuple[int, int], tuple[object, ...]] = {}  # what is known of the content of each file
    for path in dict.fromkeys(paths):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_size:
            file = (status.st_dev, status.st_ino)
            paths_of[file].append(path)
            content[file] = (status.st_size,)
    with ThreadPoolExecutor() as pool:
        for length in (_HEAD, None):
            counts = Counter(content.values())
            equal = [file for file, known in content.items() if counts[known] > 1]
            digests = pool.map(partial(_digest, length=length), [paths_of[file][0] for file in equal])
            content |= {file: (*content[file], digest) for file, digest in zip(equal, digests)}
    same: dict[tuple[object, ...], list[Path]] = defaultdict(list)
    for file, known in content.items():
        same[known] += paths_of[file]
    groups = [group for group in same.values() if len(group) > 1]
    return {path: min(group, key=lambda p: (len(str(p)), str(p))) for group in groups for path in group}


def _digest(path: Path, length: int | None) -> bytes:
    """Return a digest of the first bytes of a file, of all of them where the length is None."""
    try:
        with path.open("rb") as file:
            if length is None:
                return hashlib.file_digest(file, "blake2b").digest()
            return hashlib.blake2b(file.read(length)).digest()
    except OSError:
        return os.fsencode(path)  # like no other; the reader of the image reports the error
