"""Read COCO's annotation files."""

import hashlib
import json
import math
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sightline.errors import SightlineError
from sightline.formats.frames import Edges


@dataclass(frozen=True)
class CocoImage:
    """An image as a COCO file tells it.

    Attributes:
        name: Path of the image.
        size: Height and width in pixels; None = the file does not tell them.
    """

    name: str
    size: tuple[int, int] | None


class CocoFile:
    """The images, categories and annotations of a COCO file.

    Args:
        path: The file, for messages.
        content: What the file holds.

    Attributes:
        images: Every image by its number.
        annotations: Every annotation of an image that the file lists.
        digest: 16 hexadecimal digits that change with the content.

    Raises:
        SightlineError: The file has another form, two entries have one number, or two images have one name.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        try:
            read = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SightlineError(f"{path} is not a COCO annotation file: {error}") from error
        self._content: dict[str, Any] = read if isinstance(read, dict) else {}
        self.images = {number: self._image(entry) for number, entry in self._entries("images").items()}
        names: dict[str, Hashable] = {}
        for number, image in self.images.items():
            if (other := names.setdefault(image.name, number)) != number:
                raise SightlineError(f"{path}: the images {other} and {number} are one file, {image.name}; merge them")
        self.annotations = self._annotations()
        self.digest = hashlib.blake2b(content, digest_size=8).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            raise SightlineError(f"cannot read {path}: {error.strerror or error}") from error

    @cached_property
    def categories(self) -> dict[Hashable, str]:
        """The name of every category by its number, without surrounding spaces; two numbers can have one name."""
        entries = self._entries("categories") if "categories" in self._content else {}
        names = {number: self._text(entry, "name", f"category {number}").strip() for number, entry in entries.items()}
        for number, name in names.items():
            if not name:
                raise SightlineError(f"{self.path}: the category {number} has an empty name; give it one")
        return names

    @property
    def annotated(self) -> set[str]:
        """The names of the categories that have an annotation."""
        return {self.category(annotation) for annotation in self.annotations}

    def category(self, annotation: dict[str, Any]) -> str:
        """Return the name of an annotation's category.

        Raises:
            SightlineError: The file has no such category.
        """
        number = annotation.get("category_id")
        if not isinstance(number, int | str) or number not in self.categories:
            raise SightlineError(
                f"{self.where(annotation)}: category_id is {number!r}; the file has the categories "
                f"{', '.join(map(repr, self.categories))}"
            )
        return self.categories[number]

    def box(self, annotation: dict[str, Any]) -> Edges | None:
        """Return the box (x1, y1, x2, y2) of an annotation; None if the box has no area.

        Raises:
            SightlineError: The box is not four finite numbers in pixels.
        """
        where = self.where(annotation)
        given = annotation.get("bbox")
        if not isinstance(given, list) or len(given) != 4 or not are_numbers(given):
            raise SightlineError(f"{where}: bbox is {given!r:.80}, no four numbers x, y, width, height in pixels")
        x, y, width, height = map(float, given)
        if width < 0 or height < 0:
            raise SightlineError(f"{where}: bbox is {given}; expected x, y, width, height with a width and height >= 0")
        check_pixels((x, y, x + width, y + height), where, given)
        return (x, y, x + width, y + height) if width and height else None

    def where(self, annotation: dict[str, Any]) -> str:
        """Return a name of an annotation for messages."""
        return f"{self.path}, annotation {annotation.get('id')} of {self.images[annotation['image_id']].name}"

    def _list(self, key: str) -> list[Any]:
        entries = self._content.get(key)
        if not isinstance(entries, list):
            raise SightlineError(
                f"{self.path} is not a COCO annotation file: it has no list {key!r}; name another file"
            )
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise SightlineError(f"{self.path} is not a COCO annotation file: {key}[{place}] is {entry!r}")
        return entries

    def _entries(self, key: str) -> dict[Hashable, dict[str, Any]]:
        """Return the entries of a list by their number."""
        found: dict[Hashable, dict[str, Any]] = {}
        for place, entry in enumerate(self._list(key)):
            number = entry.get("id")
            if not isinstance(number, int | str):
                raise SightlineError(f"{self.path}: the id of {key}[{place}] is {number!r}; expected a whole number")
            if number in found:
                raise SightlineError(
                    f"{self.path}: two of the {key} have the id {number!r}; give every entry its own id"
                )
            found[number] = entry
        return found

    def _image(self, entry: dict[str, Any]) -> CocoImage:
        height, width = entry.get("height"), entry.get("width")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) and height > 0 < width else None
        return CocoImage(self._text(entry, "file_name", f"image {entry['id']}"), size)

    def _annotations(self) -> list[dict[str, Any]]:
        found = self._list("annotations")
        known = []
        for place, entry in enumerate(found):
            if not isinstance(entry.get("image_id"), int | str):
                raise SightlineError(f"{self.path}: the image_id of annotations[{place}] is {entry.get('image_id')!r}")
            if entry["image_id"] in self.images:
                known.append(entry)
        if len(known) < len(found):
            lost = next(entry["image_id"] for entry in found if entry["image_id"] not in self.images)
            warnings.warn(
                f"{self.path}: {len(found) - len(known)} of {len(found)} annotations are left out, because the file lists "
                f"no image with their image_id, such as {lost!r}",
                stacklevel=2,
            )
        return known

    def _text(self, entry: dict[str, Any], key: str, where: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str | int):
            raise SightlineError(f"{self.path}: the {key} of {where} is {value!r}; expected a text")
        return str(value)


def are_numbers(values: list[Any]) -> bool:
    """Return whether all values of a JSON file are finite numbers."""
    try:
        return set(map(type, values)) <= {int, float} and math.isfinite(sum(values))
    except OverflowError:
        return False


def check_pixels(box: Edges, where: str, given: object) -> None:
    """Reject a box (x1, y1, x2, y2) in fractions of the image.

    Raises:
        SightlineError: All edges are in [0, 1], and not all of them are whole.
    """
    if all(0 <= edge <= 1 for edge in box) and not all(float(edge).is_integer() for edge in box):
        raise SightlineError(
            f"{where}: the box {given} is within the first pixel; expected pixels. The numbers look like fractions of the "
            "image; multiply them by its width and height"
        )
