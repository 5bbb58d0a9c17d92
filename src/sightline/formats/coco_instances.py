"""The instances of a COCO file's images, by class."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.errors import SightlineError
from sightline.formats.box_readers import Box
from sightline.formats.coco_file import CocoFile
from sightline.formats.coco_masks import Segmentation, area_of, segmentation_of


@dataclass(frozen=True)
class Instance:
    """An object in an image, or a crowd of them.

    Attributes:
        number: Number of the annotation.
        segmentation: Polygons or run lengths; None = not annotated.
        area: Area in pixels.
        crowd: Whether this is a crowd.
        box: The box; None if it has no area.
    """

    number: Any
    segmentation: Segmentation | None
    area: float
    crowd: bool
    box: Box | None


ByClass = Mapping[str, Sequence[Instance]]


def read_instances(file: CocoFile, names: Sequence[str]) -> dict[Hashable, dict[str, list[Instance]]]:
    """Return the instances of some categories, by the image's number and the category's name.

    Raises:
        SightlineError: An annotation is not as COCO's format has it.
    """
    found: dict[Hashable, dict[str, list[Instance]]] = {}
    for annotation in file.annotations:
        name = file.category(annotation)
        if name not in names:
            continue
        where = file.where(annotation)
        segmentation = segmentation_of(annotation, where)
        edges = file.box(annotation)
        instance = Instance(
            annotation.get("id"),
            segmentation,
            area_of(annotation, segmentation),
            bool(annotation.get("iscrowd")),
            Box(*edges, where=where) if edges else None,
        )
        found.setdefault(annotation["image_id"], {}).setdefault(name, []).append(instance)
    return found


def dominant(found: ByClass, names: Sequence[str], where: str) -> str:
    """Return the class that covers most of an image. Crowds count only where there is nothing else.

    Args:
        found: The image's instances by class.
        names: The classes in order; the first of them decides between equal areas.
        where: The image for messages.

    Raises:
        SightlineError: There are several classes, and none has an area.
    """
    present = [name for name in names if name in found]
    single = {name: sum(each.area for each in found[name] if not each.crowd) for name in present}
    whole = {name: sum(each.area for each in found[name]) for name in present}
    areas = single if any(single.values()) else whole
    if len(present) > 1 and not any(areas.values()):
        raise SightlineError(
            f"{where}: none of {', '.join(map(repr, present))} has an area; expected one that covers most"
        )
    return max(present, key=areas.__getitem__)
