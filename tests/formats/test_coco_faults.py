"""COCO files as other tools write them: numbering, sizes, turned images, unusual segmentations, crowds, areas."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from layouts import write_image
from sightline import data
from sightline.errors import SightlineError
from sightline.formats.frames import Frame, find_frame

pytest.importorskip("pycocotools")

SIZE = (32, 24)  # width, height
BOX = (2, 3, 10, 8)
ORIENTATION = 0x0112


def thing(category: int, box: tuple[float, ...] = BOX, **other: Any) -> dict[str, Any]:
    x, y, width, height = box
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    whole = {
        "category_id": category,
        "bbox": list(box),
        "segmentation": [polygon],
        "area": width * height,
        "iscrowd": 0,
    }
    return {key: value for key, value in (whole | other).items() if value is not ...}


def write(root: Path, part: str, categories: dict[int, str], images: list[list[dict[str, Any]]], **told: Any) -> None:
    names = [f"{i}.jpg" for i in range(len(images))]
    for name in names:
        if not (root / f"{part}2017" / name).exists():
            write_image(root / f"{part}2017" / name, size=SIZE)
    content = {
        "images": [{"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} | told for i, n in enumerate(names)],
        "annotations": [
            {"id": 100 * i + place, "image_id": i, **each}
            for i, some in enumerate(images)
            for place, each in enumerate(some)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    path = root / f"annotations/instances_{part}2017.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content))


def make(root: Path, test: list[list[dict[str, Any]]] | None = None, **options: Any) -> data.Splits:
    """Two cats and two dogs to train on, numbered 1 and 2, and a test file that may be given."""
    names = {1: "cat", 2: "dog"}
    write(root, "train", names, [[thing(1)], [thing(1)], [thing(2)], [thing(2)]])
    if test is not None:
        write(root, "val", names, test)
    return data.create_dataset("coco", root=str(root), val=0, **options)


def rectangle(box: tuple[int, ...] = BOX, size: tuple[int, int] = SIZE) -> torch.Tensor:
    x, y, width, height = box
    mask = torch.zeros(size[1], size[0], dtype=torch.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def test_each_file_numbers_the_categories_in_its_own_way(tmp_path: Path) -> None:
    write(tmp_path, "val", {7: "dog ", 1: "dog", 2: "cat"}, [[thing(7)], [thing(2)], [thing(1)]])
    assert make(tmp_path)["test"].labels.tolist() == [1, 0, 1]


def test_categories_of_the_test_file_alone_warn_and_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "val", {1: "cat", 2: "horse"}, [[thing(1)], [thing(2)]])
    with pytest.warns(UserWarning, match="'horse' are left out"):
        assert make(tmp_path)["test"].labels.tolist() == [0]


def test_a_root_category_is_no_class_and_equal_names_are_one(tmp_path: Path) -> None:
    names = {0: "animals", 1: "cat", 2: "dog", 3: "cat"}
    write(tmp_path, "train", names, [[thing(1)], [thing(3)], [thing(2)], [thing(2)]])
    write(tmp_path, "val", names, [[thing(1)], [thing(3)]])
    with pytest.warns(UserWarning, match="'animals' are no classes"):
        splits = data.create_dataset("coco", root=str(tmp_path), val=0)
    assert splits.classes == ["cat", "dog"]
    assert splits["train"].labels.tolist() == [0, 0, 1, 1]
    assert splits["test"].labels.tolist() == [0, 0]
    with pytest.raises(SightlineError, match="no image of 'animals' to train on"):
        data.create_dataset("coco", root=str(tmp_path), classes=["animals", "cat"])


def test_annotations_of_another_image_size_raise(tmp_path: Path) -> None:
    write(tmp_path, "val", {1: "cat", 2: "dog"}, [[thing(1)]], width=64, height=48)
    with pytest.raises(
        SightlineError, match=r"0\.jpg are for 64 x 48 pixels \(width x height\); the image has 32 x 24"
    ):
        make(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_and_boxes_turn_as_pillow_turns_the_image(tmp_path: Path, orientation: int) -> None:
    drawn = rectangle()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(drawn.numpy() * 255).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = torch.from_numpy(np.array(ImageOps.exif_transpose(image)) // 255)
    frame = Frame(24, 32, orientation)
    assert torch.equal(frame.turn_mask(drawn), expected)
    x1, y1, x2, y2 = map(int, frame.turn_box((2, 3, 12, 11)))
    assert torch.equal(rectangle((x1, y1, x2 - x1, y2 - y1), (expected.shape[1], expected.shape[0])), expected)
    assert find_frame(tmp_path / "a.png", (24, 32), "").upright == expected.shape


@pytest.mark.parametrize("counted", ["stored", "turned"])
@pytest.mark.parametrize("labels", ["dominant", "multiple"])
def test_polygons_on_a_turned_image_follow_the_stated_size(tmp_path: Path, counted: str, labels: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "val2017/0.jpg"
    path.parent.mkdir()
    stored = Image.fromarray(rectangle().numpy() * 255).convert("RGB")
    stored.save(path, exif=exif, quality=100)
    upright = torch.from_numpy(np.array(stored.transpose(Image.Transpose.ROTATE_270))[..., 0] // 255)
    told = {"width": 32, "height": 24} if counted == "stored" else {"width": 24, "height": 32}
    box = BOX if counted == "stored" else (13, 2, 8, 10)
    write(tmp_path, "val", {1: "cat", 2: "dog"}, [[thing(1, box)]], **told)
    sample = make(tmp_path, labels=labels)["test"][0]
    assert torch.equal(sample.mask if labels == "dominant" else sample.mask[0], upright)
    assert sample.boxes.tolist() == [[13, 2, 21, 12]]


def test_a_turned_image_whose_size_does_not_tell(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    (tmp_path / "val2017").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "val2017/0.jpg", exif=exif)
    with pytest.warns(UserWarning, match=r"1 images are turned .* do not tell"):
        sample = make(tmp_path, [[thing(1)]])["test"][0]
    assert torch.equal(sample.mask, rectangle())


@pytest.mark.parametrize("nothing", [[], {}, None, ...])
def test_an_instance_without_a_segmentation_leaves_its_image_without_a_mask(tmp_path: Path, nothing: Any) -> None:
    test = [[thing(1), thing(1, segmentation=nothing)], [thing(2)]]
    with pytest.warns(UserWarning, match=r"1 of 2 images have no mask"):
        split = make(tmp_path, test)["test"]
    assert split.has_mask.tolist() == [False, True]
    assert split[0].mask is None
    assert split[0].boxes.tolist() == [[2, 3, 12, 11]] * 2


def test_a_flat_polygon_is_read_as_one_polygon(tmp_path: Path) -> None:
    flat = [2, 3, 12, 3, 12, 11, 2, 11]
    assert torch.equal(make(tmp_path, [[thing(1, segmentation=flat)]])["test"][0].mask, rectangle())


@pytest.mark.parametrize(
    "wrong",
    [
        [[2, 3, 12, 11]],
        [[2, 3, 12, 3, 12, 11], [2, 3, 12, 11]],
        [2, 3, 12, 11],
        [[2, 3, 12, 3, 12, 11, 5]],
        [[2, 3, 12, 3, 12, "11"]],
        [[2, 3, 12, 3, 12, None]],
        [[2, 3, 12, 3, 12, float("nan")]],
        [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]],
        [[[2, 3], [12, 3], [12, 11]]],
        [[]],
        "M 2 3 L 12 3",
        {"size": [24, 32]},
        {"counts": [0, 768]},
        {"size": [24, 32], "counts": [0, 5]},
        {"size": [24, 32], "counts": [-1, 769]},
        {"size": [24], "counts": [24]},
        {"size": [12, 16], "counts": [0, 192]},
        {"size": [32, 24], "counts": [0, 768]},
    ],
)
def test_a_wrong_segmentation_is_named(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(SightlineError, match=r"instances_val2017\.json, annotation 100 of 1\.jpg: "):
        make(tmp_path, [[thing(1)], [thing(1, segmentation=wrong)]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (thing(1, bbox=...), "bbox is None"),
        (thing(1, bbox=[1, 2]), "no four numbers"),
        (thing(1, bbox=[1, 2, -3, 4]), "width and height >= 0"),
        (thing(1, bbox=[0.1, 0.1, 0.5, 0.5]), "fractions of the image"),
        (thing(1, bbox=[20, 10, 28, 20]), "outside the image of 32 x 24 pixels"),
        (thing(9), "category_id is 9; the file has the categories 1, 2"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=rf"annotation 0 of 0\.jpg: .*{message}"):
        make(tmp_path, [[wrong]])


def test_a_crowd_does_not_outweigh_an_object(tmp_path: Path) -> None:
    crowd = thing(1, (0, 0, 30, 20), iscrowd=1)
    splits = make(tmp_path, [[crowd, thing(2, (2, 2, 3, 3))], [crowd]])
    assert splits["test"].labels.tolist() == [1, 0]


@pytest.mark.parametrize("area", [0, ..., None, -1])
def test_an_area_that_is_missing_is_measured(tmp_path: Path, area: Any) -> None:
    """The second class covers more of each image, as polygons, run lengths or, without a mask, as a box."""
    counts = [0, 24 * 20, 24 * 12]
    runs = {"size": [24, 32], "counts": counts}
    larger = [thing(2, (3, 3, 9, 9)), thing(2, segmentation=runs), thing(2, (3, 3, 9, 9), segmentation=[])]
    small = thing(1, (3, 3, 8, 8), area=area)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test = make(tmp_path, [[small, large | {"area": 0}] for large in larger])["test"]
    assert test.labels.tolist() == [1, 1, 1]


def test_image_whose_classes_have_no_area_raises(tmp_path: Path) -> None:
    flat = {"segmentation": [[1, 1, 1, 1, 1, 1]], "area": 0}
    with pytest.raises(SightlineError, match=r"0\.jpg: none of 'cat', 'dog' has an area"):
        make(tmp_path, [[thing(1, **flat), thing(2, **flat)]])


def test_annotations_of_images_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    make(tmp_path, [[thing(1)]])
    path = tmp_path / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 3, "image_id": 77, **thing(1)})
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"1 of 2 annotations are left out, .* such as 77"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 0, "file_name": "0.jpg"}] * 2}, "two of the images have the id 0"),
        ({"images": [{"id": i, "file_name": "0.jpg"} for i in (0, 1)]}, r"images 0 and 1 are one file, 0\.jpg"),
        ({"images": [{"id": 0}]}, "the file_name of image 0 is None"),
        ({"images": [7]}, r"images\[0\] is 7"),
        ({"categories": [{"id": 1, "name": " "}]}, "category 1 has an empty name"),
        ({"categories": [{"id": None, "name": "cat"}]}, r"the id of categories\[0\] is None"),
        ({"annotations": {}}, "no list 'annotations'"),
        ({"annotations": [{"id": 1}]}, r"the image_id of annotations\[0\] is None"),
    ],
)
def test_a_file_of_another_form_raises(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make(tmp_path, [[thing(1)]])
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SightlineError, match=message):
        make(tmp_path)
