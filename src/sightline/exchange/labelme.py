"""LabelMe: a JSON file for each image, with masks as PNG or as polygons."""

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from sightline._core.files import make_folder, write_atomically
from sightline._core.reading import read_json
from sightline.errors import SightlineError
from sightline.exchange.marked import MarkedImage, Region, fill_box, fill_ellipse, fill_polygon, tight_box

ADVICE = "export the annotations from LabelMe again"


def write_labelme(images: Sequence[MarkedImage], output: Path) -> None:
    """Write images to JSON files in a folder, each at the path of its image."""
    for image in images:
        shapes: list[dict[str, Any]] = []
        for region in image.regions:
            x1, y1, x2, y2 = tight_box(region.mask)
            buffer = io.BytesIO()
            Image.fromarray(region.mask[y1 : y2 + 1, x1 : x2 + 1].astype(np.uint8) * 255).save(buffer, format="PNG")
            content = base64.b64encode(buffer.getvalue()).decode()
            shapes.append(
                {
                    "label": region.label, "points": [[x1, y1], [x2, y2]], "group_id": None, "description": "",
                    "shape_type": "mask", "flags": {}, "mask": content,
                }
            )  # fmt: skip
        document: dict[str, Any] = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image.path, "imageData": None,
            "imageHeight": image.height, "imageWidth": image.width,
        }  # fmt: skip
        file = (output / image.path).with_suffix(".json")
        document["imagePath"] = PurePosixPath(image.path).name
        make_folder(file.parent)
        write_atomically(file, json.dumps(document).encode())


def read_labelme(folder: Path) -> list[MarkedImage]:
    """Read the JSON files of a folder, or one of them."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.json"))
    root = folder.parent if folder.is_file() else folder
    return [image for file in files if (image := _read(file, root)) is not None]


def _read(file: Path, root: Path) -> MarkedImage | None:
    document = read_json(file, ADVICE)
    if not isinstance(document, dict) or "shapes" not in document:
        return None  # another JSON file
    try:
        height, width = int(document["imageHeight"]), int(document["imageWidth"])
        name = PurePosixPath(str(document["imagePath"]).replace("\\", "/")).name
        path = (file.relative_to(root).parent / name).as_posix()
        regions = [Region(str(shape["label"]), _draw(shape, height, width)) for shape in document["shapes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SightlineError(f"{file} is not as LabelMe writes it: {error!r}; {ADVICE}") from error
    return MarkedImage(path, height, width, regions)


def _draw(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    kind, points = shape.get("shape_type", "polygon"), shape["points"]
    if kind == "polygon":
        return fill_polygon(points, height, width)
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return fill_box(x1, y1, x2, y2, height, width)
    if kind == "circle":
        radius = math.hypot(x2 - x1, y2 - y1)
        return fill_ellipse(x1, y1, radius, radius, height, width)
    if kind == "mask":
        mask = np.zeros((height, width), bool)
        crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
        left, top = int(x1), int(y1)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return mask
    raise SightlineError(
        f"the shape {kind!r} of {shape['label']!r} has no area; expected polygon, rectangle, circle or mask"
    )
