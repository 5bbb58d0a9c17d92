"""What tells files from others of the same names, and the files whose content is in a data set more than once."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

_HEAD = 16_384  # bytes; most files of one size differ here
_BLOCK = 4096
_BLOCKS = 4


def content_of_files(paths: Sequence[Path]) -> str:
    """Return 16 hexadecimal digits that change when the content of a file does, but not with its name or date.

    Of each file count its size and its bytes; of a file above 16 KiB, four blocks of 4 KiB from the beginning to the end. What
    changes between these alone is not seen. A compressed image, such as a JPEG or PNG file, changes at its end with any pixel;
    an uncompressed one may not.

    Args:
        paths: the files, in an order that counts; each is read once.
    """
    digest = hashlib.blake2b(digest_size=8)
    distinct = list(dict.fromkeys(paths))
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(distinct, pool.map(_digest, distinct)))
    for path in paths:
        digest.update(digests[path])
    return digest.hexdigest()


def _digest(path: Path) -> bytes:
    """Return the digest of a file, that of nothing where it cannot be read: what opens the image reports the error."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(size.to_bytes(8, "little"))
            if size <= _BLOCKS * _BLOCK:
                digest.update(file.read())
            else:
                for number in range(_BLOCKS):
                    file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
                    digest.update(file.read(_BLOCK))
    except OSError:
        return b""
    return digest.digest()


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
            digests = pool.map(partial(_digest_of_start, length=length), [paths_of[file][0] for file in equal])
            content |= {file: (*content[file], digest) for file, digest in zip(equal, digests)}
    same: dict[tuple[object, ...], list[Path]] = defaultdict(list)
    for file, known in content.items():
        same[known] += paths_of[file]
    groups = [group for group in same.values() if len(group) > 1]
    return {path: min(group, key=lambda p: (len(str(p)), str(p))) for group in groups for path in group}


def _digest_of_start(path: Path, length: int | None) -> bytes:
    """Return a digest of the first bytes of a file, of all of them where the length is None."""
    try:
        with path.open("rb") as file:
            if length is None:
                return hashlib.file_digest(file, "blake2b").digest()
            return hashlib.blake2b(file.read(length)).digest()
    except OSError:
        return os.fsencode(path)  # like no other; the reader of the image reports the error
