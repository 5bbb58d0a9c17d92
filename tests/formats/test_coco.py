import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layouts import write_image
from sightline import data
from sightline.errors import SightlineError

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


def rectangle(x: int, y: int, width: int, height: int) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def instance(
    number: int, image: int, category: int, box: tuple[int, int, int, int], segmentation: Any = None
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "segmentation": [rectangle(*box)] if segmentation is None else segmentation,
        "iscrowd": int(isinstance(segmentation, dict)),
    }


def runs(mask: np.ndarray, packed: bool) -> dict[str, Any]:
    """A mask as run lengths, column after column and beginning with zeros."""
    if packed:
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    flat = mask.T.flatten().astype(int)
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    counts = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def write(root: Path, part: str, images: dict[int, list[dict[str, Any]]]) -> None:
    for image in images:
        write_image(root / f"{part}2017" / f"{image:012}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": 32, "height": 24} for i in images],
        "annotations": [each for found in images.values() for each in found],
        "categories": CATEGORIES,
    }
    path = root / f"annotations/instances_{part}2017.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """COCO's layout: persons and dogs as polygons, a crowd as run lengths, and an image without an instance."""
    crowd = np.zeros((24, 32))
    crowd[2:10, 0:12] = 1
    train: dict[int, list[dict[str, Any]]] = {i: [instance(i, i, 1, (2, 3, 10, 8))] for i in range(1, 4)}
    train |= {i: [instance(i, i, 18, (4, 4, 6, 6))] for i in range(4, 7)}
    train[7] = []
    write(tmp_path, "train", train)
    test = {
        20: [
            instance(1, 20, 1, (0, 0, 8, 10)),
            instance(2, 20, 18, (10, 2, 9, 7)),
            instance(3, 20, 18, (20, 12, 6, 5)),
        ],
        21: [instance(4, 21, 1, (0, 2, 12, 8), runs(crowd, packed=True)), instance(5, 21, 3, (20, 2, 4, 4))],
    }
    write(tmp_path, "val", test)
    return tmp_path


def test_dominant_labels_take_the_class_with_most_pixels(coco_folder: Path) -> None:
    splits = data.create_dataset("coco", root=str(coco_folder), classes=["person", "dog"], val=1)
    assert splits.classes == ["person", "dog"]
    assert {name: split.labels.tolist() for name, split in splits.items()} == {
        "train": [0, 0, 1, 1],
        "val": [0, 1],
        "test": [1, 0],  # two dogs, 93 pixels, against one person, 80
    }
    sample = splits["test"][0]
    expected = torch.zeros(24, 32, dtype=torch.uint8)
    expected[2:9, 10:19] = 1
    expected[12:17, 20:26] = 1
    assert torch.equal(sample.mask, expected)
    assert sample.boxes.tolist() == [[10, 2, 19, 9], [20, 12, 26, 17]]


@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths(coco_folder: Path, packed: bool) -> None:
    drawn = np.zeros((24, 32))
    drawn[0:5, 0:3] = 1
    drawn[12, 30] = 1
    write(coco_folder, "val", {30: [instance(1, 30, 1, (0, 0, 31, 13), runs(drawn, packed))]})
    sample = data.create_dataset("coco", root=str(coco_folder), classes=["person", "dog"])["test"][0]
    assert np.array_equal(sample.mask.numpy(), drawn)
    wrong = runs(drawn, packed) | {"size": [32, 24]}
    write(coco_folder, "val", {30: [instance(1, 30, 1, (0, 0, 31, 13), wrong)]})
    with pytest.raises(SightlineError, match=r"annotation 1 of .* run lengths is \[32, 24\]; expected \[24, 32\]"):
        data.create_dataset("coco", root=str(coco_folder), classes=["person", "dog"])["test"][0]


def test_multiple_labels_give_every_class_with_masks_and_boxes(coco_folder: Path) -> None:
    splits = data.create_dataset("coco", root=str(coco_folder), labels="multiple", val=2)
    assert splits.classes == ["person", "car", "dog"]  # by their number
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "val": 2, "test": 2}
    test = splits["test"]
    assert test.labels.tolist() == [[1, 0, 1], [1, 1, 0]]
    mask = test[0].mask
    assert mask.shape == (3, 24, 32)
    assert mask.flatten(1).sum(1).tolist() == [80, 0, 93]
    assert test[0].boxes.tolist() == [[0, 0, 8, 10], [10, 2, 19, 9], [20, 12, 26, 17]]


def test_the_fingerprint_follows_the_annotations(coco_folder: Path) -> None:
    def fingerprint() -> str:
        return data.create_dataset("coco", root=str(coco_folder), classes=["person", "dog"])["test"].fingerprint

    before = fingerprint()
    assert before == fingerprint()
    path = coco_folder / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segmentation"][0][0] -= 1  # a corner of a dog
    path.write_text(json.dumps(content))
    assert before != fingerprint()


def test_coco_invalid_options_and_files_raise(coco_folder: Path) -> None:
    root = str(coco_folder)
    with pytest.raises(SightlineError, match="unknown class 'dogs'; did you mean 'dog'"):
        data.create_dataset("coco", root=root, classes=["dogs", "person"])
    with pytest.raises(SightlineError, match="per_class is 3"):
        data.create_dataset("coco", root=root, labels="multiple", per_class=3)
    path = coco_folder / "annotations/instances_val2017.json"
    path.write_text("[]")
    with pytest.raises(SightlineError, match="has no list 'images'"):
        data.create_dataset("coco", root=root)
