"""Files as the readers expect them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

BREEDS = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 6}


def write_image(path: Path, colour: Sequence[int] = (200, 30, 30), size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)
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
