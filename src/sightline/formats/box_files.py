"""Boxes that someone drew: a COCO file, a folder of Pascal VOC files, or a CSV file."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from sightline.data.file_dataset import Record
from sightline.data.files import locate
from sightline.errors import SightlineError
from sightline.formats.box_readers import (
    AnnotatedImage,
    Box,
    check_inside,
    name_parts,
    read_coco_boxes,
    read_csv_boxes,
    read_voc_boxes,
)
from sightline.formats.frames import find_frame, unknown_orientation


class BoxFile:
    """The boxes of an annotation file; as many an image as it has.

    A name in the file stands for the image whose path ends in it: `cat/1.jpg`, or `1.jpg` where no other image has that name.

    Args:
        file: a COCO `.json`, a folder of Pascal VOC `.xml` files, or a `.csv` file with the columns
            path,x1,y1,x2,y2[,score][,label].

    Raises:
        SightlineError: the file is missing or not of these kinds, or has an entry that is not a box.
    """

    def __init__(self, file: str | Path) -> None:
        place = locate(file, "file")
        self._digest = blake2b(digest_size=8)
        self.place = place
        self._boxes: dict[tuple[str, ...], list[Box]] = defaultdict(list)
        self._sizes: dict[tuple[str, ...], tuple[int, int] | None] = {}
        names: dict[tuple[str, ...], str] = {}
        for image in self._images():
            parts = name_parts(image.name)
            if (other := names.setdefault(parts, image.name)) != image.name:
                raise SightlineError(f"file: {place} names {other} and {image.name}, which cannot be distinguished")
            self._boxes[parts] += image.boxes
            self._sizes[parts] = image.size
        if not names:
            raise SightlineError(f"file: {place} annotates no image; check that it is the right file")
        self._by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for parts in self._boxes:
            self._by_stem[parts[-1]].append(parts)
        self._taken: dict[tuple[str, ...], str] = {}
        self._counts_upright = place.suffix.lower() == ".csv"  # COCO and VOC have no rule; `size` tells
        self._warned = False

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the content of the files."""
        return self._digest.hexdigest()

    def of(self, path: str) -> list[Box]:
        """Return the boxes of the upright image at a path.

        Raises:
            SightlineError: the name in the file that stands for it has stood for another image, or the file tells another
                size of the image.
        """
        image = name_parts(str(Path(path).absolute()))
        fitting = [parts for parts in self._by_stem.get(image[-1], []) if image[-len(parts) :] == parts]
        if not fitting:
            return []
        longest = max(fitting, key=len)
        if (other := self._taken.setdefault(longest, path)) != path:
            raise SightlineError(
                f"file: {'/'.join(longest)} in {self.place} stands for both {other} and {path}; write more of the path"
            )
        frame = None if self._counts_upright else find_frame(Path(path), self._sizes[longest], str(self.place))
        if frame is None:
            return list(self._boxes[longest])
        if not (frame.known or self._warned):
            self._warned = True
            warnings.warn(unknown_orientation(str(self.place), Path(path)), stacklevel=2)
        return [box.moved(frame.turn_box(box.xyxy)) for box in self._boxes[longest]]

    def _images(self) -> Iterator[AnnotatedImage]:
        """Read the file."""
        if self.place.is_dir():
            return read_voc_boxes(self.place, self._read)
        suffix = self.place.suffix.lower()
        if suffix == ".json":
            return read_coco_boxes(self.place, self._read(self.place))
        if suffix == ".csv":
            self._read(self.place)
            return read_csv_boxes(self.place)
        raise SightlineError(f"file: {self.place} is not a .json, .csv or folder of .xml files")

    def _read(self, path: Path) -> bytes:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SightlineError(f"cannot read {path}: {error.strerror or error}") from error
        self._digest.update(content)
        return content


def with_boxes(records: Sequence[Record], file: str | Path | None) -> list[Record]:
    """Return the records with the boxes that a file holds for them; unchanged if no file is given.

    Args:
        records: the images.
        file: what `BoxFile` reads: a `.csv` with the columns path,x1,y1,x2,y2 as `sightline boxes` writes it, COCO's
            `.json`, or a folder of Pascal VOC's `.xml`.

    Raises:
        SightlineError: the file is missing or of another kind, or knows none of the images; a box is outside of its image.
    """
    if file is None:
        return list(records)
    known = BoxFile(locate(file, "boxes"))
    found = []
    for record in records:
        boxes = known.of(str(record.path))
        if boxes and (image := find_frame(record.path, None, "")):
            for box in boxes:
                check_inside(box, image.upright)
        found.append(replace(record, boxes=tuple(box.xyxy for box in boxes)))
    if not any(record.boxes for record in found):
        raise SightlineError(
            f"boxes: {file} has no box in any of the {len(found)} images; check that its paths are those of the images"
        )
    return found


def boxed_parts(parts: Mapping[str, Sequence[Record]], file: str | None) -> dict[str, list[Record]]:
    """`with_boxes` for the parts of a data set together."""
    found = iter(with_boxes([record for part in parts.values() for record in part], file))
    return {name: [next(found) for _ in part] for name, part in parts.items()}
