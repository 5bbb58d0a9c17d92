"""One click on the object: how long its mask takes, and how well it fits, on pets as they are and set on scenes.

OMP_NUM_THREADS=1 SIGHTLINE_DATA=... python benchmarks/clicks.py [--images 60]
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import harness
from sightline.localization.clicks import segment_clicks

SIDE = 512  # px of the longest side


def pets(folder: Path, count: int, draw: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images with the masks of their pets; every second pet is set on a scene, at 0.5 to 0.75 of the frame."""
    files = sorted((folder / "pets" / "images").glob("*.jpg"))
    scenes = sorted((folder / "imagenet1k-sample").rglob("*.jp*g"))
    found = []
    for number, place in enumerate(draw.permutation(len(files))[:count]):
        image = np.array(Image.open(files[place]).convert("RGB"))
        trimap = folder / "pets" / "annotations" / "trimaps" / f"{files[place].stem}.png"
        mask = np.array(Image.open(trimap)) != 2
        if number % 2:
            image, mask = on_scene(image, mask, np.array(Image.open(draw.choice(scenes)).convert("RGB")), draw)
        scale = SIDE / max(mask.shape)
        size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
        resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        found.append((cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), resized))
    return found


def on_scene(
    image: np.ndarray, mask: np.ndarray, scene: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(mask)
    part = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = draw.uniform(0.5, 0.75) * min(scene.shape[:2]) / max(mask[part].shape)
    size = [max(8, round(side * scale)) for side in mask[part].shape[::-1]]
    pet = cv2.resize(image[part], size)
    shape = cv2.resize(mask[part].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    top, left = (int(draw.integers(0, a - b + 1)) for a, b in zip(scene.shape[:2], shape.shape))
    whole = np.zeros(scene.shape[:2], bool)
    whole[top : top + size[1], left : left + size[0]] = shape
    made = scene.copy()
    made[whole] = pet[shape]
    return made, whole


def click(mask: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A place in the inner half of the object, as a person clicks."""
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    inner = np.argwhere(depth > 0.5 * depth.max())
    row, column = inner[draw.integers(len(inner))]
    return np.array([[column + 0.5, row + 0.5]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=60)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    draw = np.random.default_rng(0)
    overlaps: dict[str, list[float]] = {"as they are": [], "on scenes": []}
    seconds = []
    for number, (image, mask) in enumerate(pets(Path(os.environ["SIGHTLINE_DATA"]), args.images, draw)):
        where = click(mask, draw)
        start = time.process_time()
        found = segment_clicks(image, where)
        seconds.append(time.process_time() - start)
        overlaps[list(overlaps)[number % 2]].append((found & mask).sum() / (found | mask).sum())
    result = {
        "images": args.images,
        "longest side": SIDE,
        "milliseconds, median": 1000 * statistics.median(seconds),
        "milliseconds, largest": 1000 * max(seconds),
        "IoU with the object, mean": {name: float(np.mean(values)) for name, values in overlaps.items()},
        "IoU below 0.3": {name: int((np.array(values) < 0.3).sum()) for name, values in overlaps.items()},
    }
    harness.write("clicks-cpu", result, packages=("opencv-python-headless",))


if __name__ == "__main__":
    main()
