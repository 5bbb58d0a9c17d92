"""The marks as files: masks of objects, masks of what must not matter, and what people said."""

import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sightline._core.files import make_folder, write_atomically
from sightline.errors import SightlineError
from sightline.fixing.marks import Mark
from sightline.fixing.protocol import MarkingData


def write_marks(data: MarkingData, marks: Mapping[int, Mark], folder: Path) -> list[Path]:
    """Write marks as files.

    `masks/` and `avoid/` have a PNG for each image with such a mask, at the path and in the size of the image: 255 = object
    or region to avoid, 0 = the rest. Data sets read them by `masks=FOLDER/masks`. `marks.json` has the judgements.

    Args:
        data: the images.
        marks: by the index of the image.
        folder: where to; it is made.

    Returns:
        The files.

    Raises:
        SightlineError: two images would have one file, or a name leads out of the folder.
        UnwritableError: a file cannot be written.
    """
    files: list[Path] = []
    paths = {index: _path(data.names[index]) for index in marks}
    if len(set(paths.values())) < len(paths):
        raise SightlineError("two marked images have one name except for the suffix; rename one of them")
    for path in {_path(name) for name in data.names} - set(paths.values()):
        for name in ("masks", "avoid"):
            (folder / name / path).unlink(missing_ok=True)  # an earlier export's, whose marks were undone
    for index, mark in marks.items():
        height, width = data.image(index).shape[:2]
        full = mark.resized(height, width)
        for name, mask in (("masks", full.object), ("avoid", full.avoid)):
            file = folder / name / paths[index]
            if mask is None:
                file.unlink(missing_ok=True)
                continue
            make_folder(file.parent)
            write_atomically(file, png(mask.astype(np.uint8) * 255))
            files.append(file)
    known = {
        data.names[index]: {
            "label": data.labels[index],
            "judgement": mark.judgement,
            "object": mark.object is not None,
            "avoid": mark.avoid is not None,
        }
        for index, mark in marks.items()
    }
    make_folder(folder)
    write_atomically(folder / "marks.json", (json.dumps(known, indent=2, ensure_ascii=False) + "\n").encode())
    return [*files, folder / "marks.json"]


def png(pixels: np.ndarray) -> bytes:
    """Return gray or RGBA pixels as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _path(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise SightlineError(f"names has {name!r}; expected a relative path without '..'")
    return path.with_suffix(".png")
