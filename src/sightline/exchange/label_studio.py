"""Label Studio: one JSON file of tasks, with masks as brushes.

A brush is a stream of bits that holds the RGBA values of a mask by packed run lengths. 32 bits: the number of values. 5 bits:
the bits of a value, less 1. Four times 4 bits: the sizes that a length can have in bits, less 1. Then pieces: 1 bit that says
whether the piece repeats one value, 2 bits that name the size of the length, the length less 1, and the value or values.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np

from sightline._core.files import write_atomically
from sightline._core.reading import read_json
from sightline.errors import SightlineError
from sightline.exchange.marked import MarkedImage, Region, fill_box, fill_ellipse, fill_polygon, run_lengths

SIZES = (4, 8, 12, 16)
WORD = 8
CHANNELS = 4
KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
ADVICE = "export the project as JSON"


def write_label_studio(images: Sequence[MarkedImage], output: Path) -> None:
    """Write images to a JSON file of tasks, whose masks are annotations of a brush named `mask` on an image named `image`."""
    tasks = []
    for image in images:
        results = [
            {
                "id": f"region{number}", "from_name": "mask", "to_name": "image", "type": "brushlabels",
                "original_width": image.width, "original_height": image.height, "image_rotation": 0,
                "value": {"format": "rle", "rle": pack_mask(region.mask), "brushlabels": [region.label]},
            }
            for number, region in enumerate(image.regions)
        ]  # fmt: skip
        tasks.append({"data": {"image": f"/data/local-files/?d={image.path}"}, "annotations": [{"result": results}]})
    write_atomically(output, json.dumps(tasks).encode())


def read_label_studio(file: Path) -> list[MarkedImage]:
    """Read the tasks of a JSON file; of several annotations of a task, the last counts."""
    tasks = read_json(file, ADVICE)
    if not isinstance(tasks, list):
        raise SightlineError(f"{file} is not a list of tasks; {ADVICE}, not as JSON-MIN or COCO")
    found = []
    for task in tasks:
        try:
            done = [each for each in task["annotations"] if not each.get("was_cancelled")]
            results = [each for each in done[-1]["result"] if each["type"] in KINDS] if done else []
            if not results:
                continue
            height, width = (int(results[0][f"original_{side}"]) for side in ("height", "width"))
            path = _path_of(task["data"])
            regions = [
                Region(str(each["value"][each["type"]][0]), _draw(each, height, width, f"{file}, {path}"))
                for each in results
            ]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise SightlineError(f"{file} is not as Label Studio writes it: {error!r}; {ADVICE}") from error
        found.append(MarkedImage(path, height, width, regions))
    return found


def _path_of(data: dict[str, Any]) -> str:
    """Return the path of a task's image, from the address by which Label Studio shows it."""
    address = next(str(value) for key, value in data.items() if key in ("image", "img") or "image" in key.lower())
    parsed = urlparse(address)
    local = parse_qs(parsed.query).get("d")
    path = unquote(local[0] if local else parsed.path).replace("\\", "/").lstrip("/")
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{UPLOADED.sub('', name)}" if "upload/" in path else path


def _draw(result: dict[str, Any], height: int, width: int, where: str) -> np.ndarray:
    value = result["value"]
    if result["type"] == "brushlabels":
        return unpack_mask(value["rle"], height, width, where)
    if result.get("image_rotation") or value.get("rotation"):
        raise SightlineError(f"{where}: a {result['type'].removesuffix('labels')} is turned; expected upright ones")
    across, down = width / 100, height / 100  # values are percentages
    if result["type"] == "polygonlabels":
        return fill_polygon([(x * across, y * down) for x, y in value["points"]], height, width)
    x, y = value["x"] * across, value["y"] * down
    if result["type"] == "rectanglelabels":
        return fill_box(x, y, x + value["width"] * across, y + value["height"] * down, height, width)
    return fill_ellipse(x, y, value["radiusX"] * across, value["radiusY"] * down, height, width)


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
