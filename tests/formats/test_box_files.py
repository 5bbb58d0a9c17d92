"""Annotation files: COCO, Pascal VOC and CSV, and which image a name in them stands for."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sightline import SightlineError
from sightline.formats.box_files import Box, BoxFile


def coco(path: Path, names: list[str]) -> Path:
    images = [{"id": 10 + i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)]
    annotations = [
        {"id": 1, "image_id": 10, "category_id": 3, "bbox": [5, 6, 20, 10.5]},
        {"id": 2, "image_id": 10, "category_id": 4, "bbox": [0, 0, 4, 4], "score": 0.5},
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 4, "name": "toy"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_a_coco_file_gives_the_boxes_of_each_path(tmp_path: Path) -> None:
    boxes = BoxFile(coco(tmp_path / "a.json", ["cat/1.jpg", "dog/1.jpg"]))
    assert boxes.of("/data/cat/1.png") == [Box(5, 6, 25, 16.5, None, "cat"), Box(0, 0, 4, 4, 0.5, "toy")]
    assert boxes.of("/data/dog/1.jpg") == []
    assert boxes.of("/data/hen/1.jpg") == []


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = "a.jpg"
    thing = ElementTree.SubElement(root, "object")
    ElementTree.SubElement(thing, "name").text = "cat"
    box = ElementTree.SubElement(thing, "bndbox")
    for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), (1, 1, 40, 30)):
        ElementTree.SubElement(box, edge).text = str(value)
    ElementTree.ElementTree(root).write(tmp_path / "other.xml")
    assert BoxFile(tmp_path).of("/data/a.jpg") == [Box(0, 0, 40, 30, None, "cat")]
    ElementTree.SubElement(thing, "bndbox")
    (tmp_path / "bad.xml").write_text("<annotation>")
    with pytest.raises(SightlineError, match=r"bad\.xml is not a Pascal VOC annotation"):
        BoxFile(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", "path,x1,y1,x2\n", "'y2' is missing"),
        ("a.csv", "path,x1,y1,x2,y2\n", "annotates no image"),
        ("a.csv", "path,x1,y1,x2,y2\na.jpg,1,2,three,4\n", "line 2: 'three' is not a finite number"),
        ("a.csv", "path,x1,y1,x2,y2\na.jpg,1,2,nan,4\n", "line 2: 'nan' is not a finite number"),
        (
            "a.csv",
            "path,x1,y1,x2,y2\na.jpg,1,2,3,4\na.png,1,2,3,4\n",
            r"a\.jpg and a\.png, which cannot be distinguished",
        ),
        ("a.json", "{}", "not a COCO annotation file"),
        ("a.json", "[1, 2]", "not a COCO annotation file"),
        ("a.json", "{", "not a COCO annotation file"),
        (
            "a.json",
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 5, "bbox": [1, 2], "image_id": 1}]}',
            r"annotation 5 of a\.jpg: .* no four numbers",
        ),
        ("a.txt", "", "not a .json, .csv or folder"),
    ],
)
def test_damaged_annotation_files_raise(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(SightlineError, match=message):
        BoxFile(tmp_path / file)


def test_a_name_that_stands_for_two_images_raises(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,x1,y1,x2,y2\n1.jpg,1,2,3,4\nhen/1.jpg,5,6,7,8\n2.jpg,,,,\n")
    boxes = BoxFile(tmp_path / "a.csv")
    assert boxes.of("/data/cat/1.jpg") == boxes.of("/data/cat/1.jpg") == [Box(1, 2, 3, 4)]
    assert boxes.of("/data/hen/1.jpg") == [Box(5, 6, 7, 8)]
    assert boxes.of("/data/cat/2.jpg") == []
    with pytest.raises(SightlineError, match=r"stands for both /data/cat/1\.jpg and /data/dog/1\.jpg"):
        boxes.of("/data/dog/1.jpg")
