"""CVAT: one XML file ("CVAT for images 1.1"), with masks as run lengths within their box."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sightline._core.files import write_atomically
from sightline.errors import SightlineError
from sightline.exchange.marked import (
    MarkedImage,
    Region,
    fill_box,
    fill_ellipse,
    fill_polygon,
    from_run_lengths,
    run_lengths,
    tight_box,
)


def write_cvat(images: Sequence[MarkedImage], output: Path) -> None:
    """Write images to an XML file."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, image in enumerate(images):
        about = {"id": str(number), "name": image.path, "width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", about)
        for region in image.regions:
            x1, y1, x2, y2 = tight_box(region.mask)
            runs = run_lengths(region.mask[y1 : y2 + 1, x1 : x2 + 1].flatten())
            facts = {
                "label": region.label, "source": "manual", "occluded": "0", "rle": ", ".join(map(str, runs)),
                "left": str(x1), "top": str(y1), "width": str(x2 - x1 + 1), "height": str(y2 - y1 + 1), "z_order": "0",
            }  # fmt: skip
            ElementTree.SubElement(element, "mask", facts)
    ElementTree.indent(root)
    write_atomically(output, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def read_cvat(file: Path) -> list[MarkedImage]:
    """Read the images of an XML file."""
    try:
        root = ElementTree.parse(file).getroot()
        return [_read(element, file) for element in root.iter("image")]
    except (ElementTree.ParseError, KeyError, ValueError, OSError) as error:
        if isinstance(error, SightlineError):
            raise
        raise SightlineError(
            f"{file} is not as CVAT writes it: {error!r}; export it as 'CVAT for images 1.1'"
        ) from error


def _read(element: ElementTree.Element, file: Path) -> MarkedImage:
    path, height, width = element.attrib["name"], int(element.attrib["height"]), int(element.attrib["width"])
    regions = []
    for shape in element:
        if shape.tag in ("mask", "polygon", "box", "ellipse"):
            regions.append(Region(shape.attrib["label"], _draw(shape, height, width, f"{file}, image {path}")))
    return MarkedImage(path, height, width, regions)


def _draw(shape: ElementTree.Element, height: int, width: int, where: str) -> np.ndarray:
    given = shape.attrib
    if shape.tag == "polygon":
        points = [tuple(map(float, point.split(","))) for point in given["points"].split(";")]
        return fill_polygon(points, height, width)
    if shape.tag == "box":
        x1, y1, x2, y2 = (float(given[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        return fill_box(x1, y1, x2, y2, height, width)
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = (float(given[name]) for name in ("cx", "cy", "rx", "ry"))
        return fill_ellipse(x, y, radius_x, radius_y, height, width)
    left, top, columns, rows = (int(given[name]) for name in ("left", "top", "width", "height"))
    if not (left >= 0 and left + columns <= width and top >= 0 and top + rows <= height):
        raise SightlineError(f"{where}: a mask reaches beyond the image; export it again")
    mask = np.zeros((height, width), bool)
    runs = from_run_lengths(map(int, given["rle"].split(",")), rows * columns, where)
    mask[top : top + rows, left : left + columns] = runs.reshape(rows, columns)
    return mask
