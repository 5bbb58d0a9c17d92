"""COCO's instances: one JSON file, masks as run lengths."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from sightline._core.files import write_atomically
from sightline.errors import SightlineError
from sightline.exchange.marked import MarkedImage, Region, run_lengths, tight_box
from sightline.formats.coco_file import CocoFile
from sightline.formats.coco_masks import Instances, segmentation_of


def write_coco(images: Sequence[MarkedImage], output: Path) -> None:
    """Write images to a JSON file."""
    labels = sorted({region.label for image in images for region in image.regions})
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for region in image.regions:
            x, y, right, bottom = tight_box(region.mask)
            size = [image.height, image.width]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels.index(region.label) + 1,
                    "segmentation": {"size": size, "counts": run_lengths(region.mask.flatten(order="F"))},
                    "area": int(region.mask.sum()),
                    "bbox": [x, y, right - x + 1, bottom - y + 1],
                    "iscrowd": 0,
                }
            )
    content = {
        "images": [
            {"id": number, "file_name": image.path, "height": image.height, "width": image.width}
            for number, image in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": label} for number, label in enumerate(labels, 1)],
        "annotations": annotations,
    }
    write_atomically(output, json.dumps(content).encode())


def read_coco(file: Path) -> list[MarkedImage]:
    """Read the images of a JSON file that have an instance with a segmentation."""
    found = CocoFile.read(file)
    by_image: dict[Hashable, list[Region]] = {}
    for annotation in found.annotations:
        image = found.images[annotation["image_id"]]
        where = found.where(annotation)
        segmentation = segmentation_of(annotation, where)
        if segmentation is None:
            continue
        if image.size is None:
            raise SightlineError(f"{file}: the image {image.name} has no height and width; add them")
        mask = Instances(((segmentation,),), False, where).draw(*image.size)
        by_image.setdefault(annotation["image_id"], []).append(Region(found.category(annotation), mask.numpy() == 1))
    sizes = {number: found.images[number].size or (0, 0) for number in by_image}
    return [MarkedImage(found.images[number].name, *sizes[number], regions) for number, regions in by_image.items()]
