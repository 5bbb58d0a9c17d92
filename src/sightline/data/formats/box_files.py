"""Boxes that someone drew: a COCO file, a folder of Pascal VOC files, or a CSV file."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from sightline._core.csv_files import read_csv
from sightline.data.file_dataset import Record
from sightline.data.files import locate
from sightline.errors import SightlineError


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
    """

    x1: float
    y1: float
    x2: float
    y2: float
    score: float | None = None
    label: str | None = None

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The four edges."""
        return self.x1, self.y1, self.x2, self.y2

    def within(self, size: Sequence[int]) -> "Box | None":
        """The part of it that lies in an image (height, width); None where that has no area."""
        height, width = size
        x1, x2 = (min(max(x, 0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0), height) for y in (self.y1, self.y2))
        return replace(self, x1=x1, y1=y1, x2=x2, y2=y2) if x1 < x2 and y1 < y2 else None


Named = tuple[str, Box | None]  # an image's name in the file, and one of its boxes; None = it has none


class BoxFile:
    """The boxes of an annotation file; as many an image as it has.

    A name in the file stands for the image whose path ends in it: `cat/1.jpg`, or `1.jpg` where no other image has that name.

    Args:
        file: a COCO `.json`, a folder of Pascal VOC `.xml` files, or a `.csv` file with the columns
            path,x1,y1,x2,y2[,score][,label].

    Raises:
        SightlineError: the file is missing or not of these kinds, or holds what is no box.
    """

    def __init__(self, file: str | Path) -> None:
        place = locate(file, "file")
        self._digest = blake2b(digest_size=8)
        kinds: dict[str, Callable[[Path], Iterable[Named]]] = {".json": self._coco, ".csv": self._csv}
        if place.is_dir():
            named = list(self._voc(place))
        elif place.suffix.lower() in kinds:
            named = list(kinds[place.suffix.lower()](place))
        else:
            raise SightlineError(f"file: {place} is no .json, .csv or folder of .xml files")
        if not named:
            raise SightlineError(f"file: {place} annotates no image")
        self.place = place
        self._boxes: dict[tuple[str, ...], list[Box]] = defaultdict(list)
        names: dict[tuple[str, ...], str] = {}
        for name, box in named:
            if (other := names.setdefault(_parts(name), name)) != name:
                raise SightlineError(f"file: {place} names {other} and {name}, which cannot be told apart")
            self._boxes[_parts(name)] += [] if box is None else [box]
        self._by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for parts in self._boxes:
            self._by_stem[parts[-1]].append(parts)
        self._taken: dict[tuple[str, ...], str] = {}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the content of the files."""
        return self._digest.hexdigest()

    def of(self, path: str) -> list[Box]:
        """The boxes of the image at a path.

        Raises:
            SightlineError: the name in the file that stands for it has stood for another image.
        """
        image = _parts(str(Path(path).absolute()))
        fitting = [parts for parts in self._by_stem.get(image[-1], []) if image[-len(parts) :] == parts]
        if not fitting:
            return []
        longest = max(fitting, key=len)
        if (other := self._taken.setdefault(longest, path)) != path:
            raise SightlineError(f"file: {'/'.join(longest)} in {self.place} stands for both {other} and {path}")
        return list(self._boxes[longest])

    def _read(self, path: Path) -> bytes:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SightlineError(f"cannot read {path}: {error.strerror or error}") from error
        self._digest.update(content)
        return content

    def _coco(self, path: Path) -> Iterable[Named]:
        try:
            content = json.loads(self._read(path))
            labels = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
            names = {image["id"]: str(image["file_name"]) for image in content["images"]}
            for name in names.values():
                yield name, None
            for number, found in enumerate(content["annotations"]):
                x, y, width, height = _edges(found["bbox"], f"{path}, annotation {number}")
                yield (
                    names[found["image_id"]],
                    Box(x, y, x + width, y + height, found.get("score"), labels.get(found.get("category_id"))),
                )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise SightlineError(f"{path} is no COCO annotation file: {type(error).__name__} {error}") from error

    def _voc(self, folder: Path) -> Iterable[Named]:
        for path in sorted(folder.rglob("*.xml")):
            try:
                tree = ElementTree.fromstring(self._read(path))
                name = tree.findtext("filename") or path.name
                yield name, None
                for found in tree.iter("object"):
                    edges = (found.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
                    x1, y1, x2, y2 = _edges(edges, str(path))
                    # Pascal VOC counts pixels from 1, and its last pixel is in the box.
                    yield name, Box(x1 - 1, y1 - 1, x2, y2, label=found.findtext("name"))
            except ElementTree.ParseError as error:
                raise SightlineError(f"{path} is no Pascal VOC annotation: {error}") from error

    def _csv(self, path: Path) -> Iterable[Named]:
        self._read(path)
        for line, row in enumerate(read_csv(path, required=("path", "x1", "y1", "x2", "y2")), start=2):
            where = f"{path}, line {line}"
            edges = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
            if not any(edges):
                yield row["path"], None
                continue
            score = _number(row["score"], where) if row.get("score") else None
            yield row["path"], Box(*_edges(edges, where), score, row.get("label") or None)


def with_boxes(records: Sequence[Record], file: str | Path | None) -> list[Record]:
    """The records with the boxes that a file knows of them; as they are where no file is given.

    Args:
        records: the pictures.
        file: what `BoxFile` reads: a `.csv` with the columns path,x1,y1,x2,y2 as `sightline boxes` writes it, COCO's
            `.json`, or a folder of Pascal VOC's `.xml`.

    Raises:
        SightlineError: the file is missing or of another kind, or knows none of the pictures.
    """
    if file is None:
        return list(records)
    known = BoxFile(locate(file, "boxes"))
    found = [replace(record, boxes=tuple(box.xyxy for box in known.of(str(record.path)))) for record in records]
    if not any(record.boxes for record in found):
        raise SightlineError(f"boxes: {file} has no box in any of the {len(found)} images; are its paths theirs?")
    return found


def boxed_parts(parts: Mapping[str, Sequence[Record]], file: str | None) -> dict[str, list[Record]]:
    """`with_boxes` for the parts of a data set together."""
    found = iter(with_boxes([record for part in parts.values() for record in part], file))
    return {name: [next(found) for _ in part] for name, part in parts.items()}


def _edges(values: Iterable[Any], where: str) -> tuple[float, float, float, float]:
    given = list(values)
    if len(given) != 4:
        raise SightlineError(f"{where}: {given} are no four numbers of a box")
    x1, y1, x2, y2 = (_number(value, where) for value in given)
    return x1, y1, x2, y2


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SightlineError(f"{where}: {value!r} is no finite number")
    return number


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the plain name of an image, by which names are compared; where it starts from does not count."""
    path = PurePosixPath(name.replace("\\", "/"))
    return tuple(part for part in path.with_suffix("").parts if part not in ("/", "..", "."))
