"""Plain properties of images and of their files, and how well they predict the class."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from scipy.stats import chi2_contingency, kruskal
from torch import Tensor

from sightline.localization.annotation import Annotated
from sightline.statistics.bootstrap import Array
from sightline.statistics.pairs import holm

CAMERA = 272  # the EXIF tag of the camera's model
CORNER = 0.25  # side of a corner, as a share of the image's
CORNERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class Property:
    """How a plain property goes with the class.

    Attributes:
        name: of the property.
        strength: share of its variance of ranks that the class explains (numbers), or squared Cramér's V (kinds), in [0, 1].
        p: p-value of a Kruskal-Wallis or chi-squared test, after Holm's correction for all properties.
        n: number of images that have it.
    """

    name: str
    strength: float
    p: float
    n: int


@cache
def _standard_table() -> Array:
    """Return the luminance table of quality 50."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, format="JPEG", quality=50)
    with Image.open(buffer) as image:
        return np.array(getattr(image, "quantization")[0], dtype=float)  # noqa: B009 - Pillow's types do not know it


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> float:
    """Return the quality in [1, 100] that libjpeg's rule gives to the tables of a JPEG file."""
    table = np.array(tables[0], dtype=float)
    inner = table < table.max() if table.max() >= 255 else np.ones_like(table, dtype=bool)  # larger values are cut off
    scale = 100 * float(np.mean((table / _standard_table())[inner])) if inner.any() else 5000.0
    return float(np.clip(5000 / scale if scale > 100 else (200 - scale) / 2, 1, 100))


def file_properties(paths: Sequence[str]) -> dict[str, list[float | str | None]]:
    """Return width, height, aspect, JPEG quality, format and camera of each image; None if not known."""
    found: dict[str, list[float | str | None]] = {
        name: [None] * len(paths) for name in ("width", "height", "aspect", "JPEG quality", "file format", "camera")
    }
    for row, path in enumerate(paths):
        if not os.path.isfile(path):
            continue
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None)
            quality = jpeg_quality(tables) if tables else None
            camera = image.getexif().get(CAMERA)
            values = (*image.size, image.width / image.height, quality, image.format, camera and str(camera).strip())
        for name, value in zip(found, values):
            found[name][row] = value
    return found


def sharpness(gray: Tensor) -> Tensor:
    """Return the mean absolute Laplacian (B,) of gray images (B, H, W)."""
    inner = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    return (around - 4 * inner).abs().mean((1, 2))


def pixel_properties(images: Tensor, regions: Tensor) -> dict[str, Tensor]:
    """Return brightness, color cast and blur outside of the objects, and the edges in each corner, each (n,).

    Args:
        images: (n, 3, H, W) in [0, 1].
        regions: (n, H, W), 0 = background; an image without background counts as a whole.
    """
    outside = (regions == 0).to(images.dtype)[:, None]
    outside = torch.where(outside.sum((1, 2, 3), keepdim=True) > 0, outside, 1.0)
    means = (images * outside).sum((2, 3)) / outside.sum((2, 3))
    gray = images.mean(1)
    found = {
        "brightness": means.mean(1),
        "red cast": means[:, 0] - means.mean(1),
        "blue cast": means[:, 2] - means.mean(1),
        "sharpness": sharpness(gray),
    }
    y, x = (max(3, round(CORNER * side)) for side in images.shape[-2:])
    for name in CORNERS:
        rows = slice(None, y) if "top" in name else slice(-y, None)
        columns = slice(None, x) if "left" in name else slice(-x, None)
        found[f"edges in the {name} corner"] = sharpness(gray[:, rows, columns])
    return found


def measure_properties(shown: Annotated) -> list[Property]:
    """Return how all properties that vary go with the class, the strongest first."""
    labels = shown.labels.numpy()
    found = []
    columns: dict[str, list[float | str | None]] = {
        **file_properties(shown.paths),
        **{name: list(values.tolist()) for name, values in pixel_properties(shown.images, shown.regions).items()},
    }
    for name, values in columns.items():
        known = np.array([value is not None for value in values])
        some = [value for value in values if value is not None]
        if len(set(some)) < 2 or len(set(labels[known].tolist())) < 2:
            continue
        strength, p = associate(some, labels[known])
        found.append((name, strength, p, int(known.sum())))
    adjusted = holm([p for _, _, p, _ in found]) if found else []
    made = [Property(name, strength, p, n) for (name, strength, _, n), p in zip(found, adjusted)]
    return sorted(made, key=lambda each: (each.p, -each.strength))


def associate(values: Sequence[float | str], labels: Array) -> tuple[float, float]:
    """Return the strength of the association of values with labels, and its p-value."""
    classes = np.unique(labels)
    if isinstance(values[0], str):
        kinds = np.unique(values)
        given = np.array(values)
        table = np.array([[np.sum((given == kind) & (labels == label)) for label in classes] for kind in kinds])
        test = chi2_contingency(table, correction=False)
        return float(test.statistic / (len(values) * (min(table.shape) - 1))), float(test.pvalue)
    numbers = np.array(values, dtype=float)
    statistic, p = kruskal(*(numbers[labels == label] for label in classes))
    return max(0.0, float((statistic - len(classes) + 1) / max(1, len(values) - len(classes)))), float(p)
