"""Files as the readers expect them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

BREEDS = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 6}


def write_image(path: Path, colour: Sequence[int] = (200, 30, 30), size: tuple[int, int] = (32, 24)) -> Path:
    """Write an image of one color; a comment makes its file unlike every other, which would be a copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = PngImagePlugin.PngInfo()
    note.add_text("path", repr(path))
    Image.new("RGB", size, tuple(colour)).save(path, pnginfo=note, comment=repr(path).encode())
    return path


def write_mask(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def trimap(height: int = 24, width: int = 32) -> np.ndarray:
    """1 = pet in the middle, 3 = a border around it, 2 = background."""
    values = np.full((height, width), 2)
    values[4:20, 6:26] = 3
    values[6:18, 8:24] = 1
    return values
