"""The packed run lengths of Label Studio's brush: a stream of bits that holds the RGBA values of a mask.

32 bits: the number of values. 5 bits: the bits of a value, less 1. Four times 4 bits: the sizes that a length can have in bits,
less 1. Then pieces: 1 bit that says whether the piece repeats one value, 2 bits that name the size of the length, the length
less 1, and the value or values.
"""

from collections.abc import Iterable

import numpy as np

from sightline.errors import SightlineError
from sightline.exchange.marked import run_lengths

SIZES = (4, 8, 12, 16)
WORD = 8
CHANNELS = 4


def pack_mask(mask: np.ndarray) -> list[int]:
    """Return a mask (H, W) bool as bytes: 255 in all four channels where it is True, else 0."""
    bits = [f"{mask.size * CHANNELS:032b}", f"{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for number, length in enumerate(run_lengths(mask.flatten())):
        left = length * CHANNELS
        while left:
            some = min(left, 1 << SIZES[-1])
            which = next(place for place, size in enumerate(SIZES) if some <= 1 << size)
            bits.append(f"1{which:02b}{some - 1:0{SIZES[which]}b}{255 * (number % 2):08b}")
            left -= some
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return [int(stream[start : start + 8], 2) for start in range(0, len(stream), 8)]


def unpack_mask(packed: Iterable[int], height: int, width: int, where: str) -> np.ndarray:
    """Return the mask (H, W) bool of such bytes: where the alpha value is 128 or more.

    Raises:
        SightlineError: the bytes end too early, or hold another number of values than the image has.
    """
    stream = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        if place > len(stream):
            raise SightlineError(f"{where}: the brush ends too early; export the annotations again")
        return int(stream[place - size : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if total != height * width * CHANNELS:
        raise SightlineError(
            f"{where}: the brush has {total} values; expected {height} x {width} x {CHANNELS}, those of the image"
        )
    values = np.zeros(total, np.uint8)
    start = 0
    while start < total:
        repeated = read(1)
        stop = start + 1 + read(sizes[read(2)])
        values[start:stop] = read(word) if repeated else [read(word) for _ in range(start, min(stop, total))]
        start = stop
    return values.reshape(height, width, CHANNELS)[..., 3] >= 128
