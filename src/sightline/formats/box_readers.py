"""Read boxes from COCO files, Pascal VOC files and CSV files."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from sightline._core.csv_files import is_missing, read_csv
from sightline.data.image_listing import IMAGE_SUFFIXES
from sightline.errors import SightlineError
from sightline.formats.coco_file import CocoFile, check_pixels
from sightline.formats.frames import Edges


@dataclass(frozen=True)
class Box:
    """A box around an object.

    Args:
        x1: left edge in pixels; the first pixel of an image is the box (0, 0, 1, 1).
        y1: upper edge.
        x2: right edge.
        y2: lower edge.
        score: how sure its source is, higher for surer; None where the source does not say.
        label: what the source takes the object for.
        where: File and line of the box, for messages.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    score: float | None = None
    label: str | None = None
    where: str = field(default="", compare=False)

    @property
    def xyxy(self) -> Edges:
        """The four edges."""
        return self.x1, self.y1, self.x2, self.y2

    def moved(self, edges: Edges) -> "Box":
        """Return the box with other edges."""
        x1, y1, x2, y2 = edges
        return replace(self, x1=x1, y1=y1, x2=x2, y2=y2)

    def within(self, size: Sequence[int]) -> "Box | None":
        """Return the part of the box inside an image (height, width); None if it has no area."""
        height, width = size
        x1, x2 = (min(max(x, 0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0), height) for y in (self.y1, self.y2))
        return self.moved((x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else None


@dataclass(frozen=True)
class AnnotatedImage:
    """An image as an annotation file names it.

    Attributes:
        name: Path of the image, or its end.
        boxes: The boxes of the image.
        size: Height and width of the image that was annotated; None = the file does not tell them.
    """

    name: str
    boxes: Sequence[Box]
    size: tuple[int, int] | None = None


def read_coco_boxes(path: Path, content: bytes) -> Iterator[AnnotatedImage]:
    """Yield the images of a COCO file."""
    file = CocoFile(path, content)
    boxes: dict[Any, list[Box]] = defaultdict(list)
    for found in file.annotations:
        label = file.category(found) if file.categories and "category_id" in found else None
        score = None if found.get("score") is None else _number(found["score"], file.where(found))
        if edges := file.box(found):
            boxes[found["image_id"]].append(Box(*edges, score, label, file.where(found)))
    for number, image in file.images.items():
        yield AnnotatedImage(image.name, boxes[number], image.size)


def read_voc_boxes(folder: Path, read: Callable[[Path], bytes]) -> Iterator[AnnotatedImage]:
    """Yield the images of a folder of Pascal VOC files. Where two files name one image, their folders tell the images apart.

    Raises:
        SightlineError: A file is no annotation, or two files of one folder name one image.
    """
    named: dict[tuple[str, ...], list[tuple[Path, ElementTree.Element, str]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.xml")):
        try:
            tree = ElementTree.fromstring(read(path))
        except ElementTree.ParseError as error:
            raise SightlineError(f"{path} is not a Pascal VOC annotation: {error}") from error
        if tree.tag != "annotation":
            raise SightlineError(f"{path} is not a Pascal VOC annotation: it holds <{tree.tag}>")
        name = (tree.findtext("filename") or "").strip() or path.stem
        named[name_parts(name)].append((path, tree, name))
    for files in named.values():
        by_folder: dict[Path, Path] = {}
        for path, tree, name in files:
            if (other := by_folder.setdefault(path.parent, path)) != path:
                raise SightlineError(
                    f"{other} and {path} both name the image {name}; correct <filename> in one of them"
                )
            full = name if len(files) == 1 else (path.parent.relative_to(folder) / PurePosixPath(name).name).as_posix()
            yield AnnotatedImage(full, [_voc_box(found, path) for found in tree.iter("object")], _voc_size(tree))


def read_csv_boxes(path: Path) -> Iterator[AnnotatedImage]:
    """Yield the images of a CSV file with the columns path,x1,y1,x2,y2[,score][,label]."""
    for line, row in read_csv(path, required=("path", "x1", "y1", "x2", "y2")):
        where = f"{path}, line {line}"
        given = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
        if all(map(is_missing, given)):
            yield AnnotatedImage(row["path"], [])
            continue
        edges = _edges(given, where)
        _check_order(edges, where, given)
        score, label = row.get("score", ""), row.get("label", "")
        box = Box(
            *edges, None if is_missing(score) else _number(score, where), None if is_missing(label) else label, where
        )
        yield AnnotatedImage(row["path"], [box])


def check_inside(box: Box, size: tuple[int, int]) -> None:
    """Reject a box that reaches out of an image by more than 1 pixel and 2 % of the image's side.

    Args:
        box: The box.
        size: Height and width of the image.

    Raises:
        SightlineError: The box reaches further.
    """
    if _fits(box.xyxy, size):
        return
    given = ", ".join(f"{edge:g}" for edge in box.xyxy)
    x1, y1, x2, y2 = box.xyxy
    likely = (
        "The numbers look like y1, x1, y2, x2"
        if _fits((y1, x1, y2, x2), size)
        else "The numbers may be of the image in another size"
    )
    raise SightlineError(
        f"{box.where}: the box {given} is outside the image of {size[1]} x {size[0]} pixels (width x height); expected x1, "
        f"y1, x2, y2 in pixels. {likely}"
    )


def name_parts(name: str) -> tuple[str, ...]:
    """Return the folders and the plain name of an image, by which names are compared; the start of the path does not count."""
    path = PurePosixPath(name.replace("\\", "/"))
    plain = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    return tuple(part for part in plain.parts if part not in ("/", "..", "."))


def _fits(edges: Edges, size: tuple[int, int]) -> bool:
    height, width = (side + max(1, 0.02 * side) for side in size)
    x1, y1, x2, y2 = edges
    return (
        min(x1 - size[1], y1 - size[0]) < 0
        and _above(x1, size[1])
        and _above(y1, size[0])
        and x2 <= width
        and y2 <= height
    )


def _above(edge: float, side: int) -> bool:
    return edge >= -max(1, 0.02 * side)


def _voc_box(found: ElementTree.Element, path: Path) -> Box:
    given = [found.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    x1, y1, x2, y2 = _edges(given, str(path))
    _check_order((x1 - 1, y1 - 1, x2, y2), str(path), given)
    # Pascal VOC counts pixels from 1, and its last pixel is in the box.
    return Box(x1 - 1, y1 - 1, x2, y2, label=(found.findtext("name") or "").strip() or None, where=str(path))


def _voc_size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Return the height and width that an annotation tells; None where they are missing or zero."""
    try:
        height, width = (int(tree.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _check_order(edges: Edges, where: str, given: Sequence[object]) -> None:
    x1, y1, x2, y2 = edges
    if x2 <= x1 or y2 <= y1:
        numbers = ", ".join(map(str, given))
        raise SightlineError(
            f"{where}: the box {numbers} has no area; expected x1 < x2 and y1 < y2 in pixels. The numbers look like x, y, "
            "width, height; add x to the width and y to the height"
        )


def _edges(values: Iterable[Any], where: str) -> Edges:
    given = list(values)
    x1, y1, x2, y2 = (_number(value, where) for value in given)
    check_pixels((x1, y1, x2, y2), where, ", ".join(map(str, given)))
    return x1, y1, x2, y2


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SightlineError(f"{where}: {value!r} is not a finite number; correct the coordinate")
    return number
