"""Masks to and from annotation tools: nothing is lost on the way, and what others wrote is read as they mean it."""

import base64
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sightline as sl
from sightline.cli.app import app
from sightline.data import ImageDataset, create_dataset
from sightline.exchange import TOOLS, export_masks, import_masks
from sightline.exchange.label_studio import pack_mask, unpack_mask

HEIGHT, WIDTH = 21, 30
OUTPUT = {"coco": "a.json", "cvat": "a.xml", "label-studio": "a.json", "labelme": "a"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images; masks with holes, at the border, of one pixel, of all pixels; a region to avoid of the first."""
    random = np.random.default_rng(0)
    masks = [random.random((HEIGHT, WIDTH)) > 0.6, np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)]
    masks[1][HEIGHT - 1, WIDTH - 1] = True
    for place in range(4):
        name = f"{'ab'[place % 2]}/sub/{place}"
        for folder, pixels in (
            ("photos", random.integers(0, 255, (HEIGHT, WIDTH, 3))),
            ("masks", masks[place] * 255 if place < 3 else None),
            ("avoid", masks[2 - place] * 255 if place == 0 else None),
        ):
            if pixels is not None:
                file = tmp_path / folder / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path


def opened(root: Path) -> ImageDataset:
    options = {"masks": str(root / "masks"), "avoid": str(root / "avoid"), "val": 0, "test": 0}
    return create_dataset("folder", root=str(root / "photos"), **options)["train"]


def read(folder: Path) -> dict[str, np.ndarray]:
    return {file.relative_to(folder).as_posix(): np.asarray(Image.open(file)) > 0 for file in folder.rglob("*.png")}


@pytest.mark.parametrize("tool", TOOLS)
def test_masks_come_back_pixel_by_pixel(photos: Path, tool: str) -> None:
    assert export_masks(opened(photos), tool, photos / OUTPUT[tool]) == 3
    for labels, source in ((None, "masks"), (["a", "b"], "masks"), (["avoid"], "avoid")):
        target = photos / f"back-{labels}"
        expected = read(photos / source)
        assert import_masks(photos / OUTPUT[tool], tool, photos / "photos", target, labels) == len(expected)
        found = read(target)
        assert found.keys() == expected.keys()
        assert all((found[name] == expected[name]).all() for name in expected)


def test_coco_is_what_pycocotools_reads(photos: Path) -> None:
    from pycocotools.coco import COCO

    export_masks(opened(photos), "coco", photos / "a.json")
    coco = COCO(str(photos / "a.json"))
    masks = read(photos / "masks")
    for image in coco.loadImgs(coco.getImgIds()):
        found = coco.loadAnns(coco.getAnnIds(image["id"], catIds=coco.getCatIds(["a", "b"])))
        assert len(found) == 1
        assert (coco.annToMask(found[0]) == masks[image["file_name"]]).all()
        assert found[0]["area"] == masks[image["file_name"]].sum()


def test_labelme_is_as_its_manual_says(photos: Path) -> None:
    """A mask is a PNG of the box whose corners are the first and the last pixel."""
    export_masks(opened(photos), "labelme", photos / "a")
    document = json.loads((photos / "a" / "b" / "sub" / "1.json").read_text())
    (shape,) = document["shapes"]
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == ("1.png", HEIGHT, WIDTH)
    assert (shape["shape_type"], shape["label"]) == ("mask", "b")
    assert shape["points"] == [[WIDTH - 1, HEIGHT - 1], [WIDTH - 1, HEIGHT - 1]]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).tolist() == [[255]]


def test_cvat_is_as_its_manual_says(photos: Path) -> None:
    """Run lengths within the box, row by row, the background first."""
    export_masks(opened(photos), "cvat", photos / "a.xml")
    images = {image.attrib["name"]: image for image in ElementTree.parse(photos / "a.xml").getroot().iter("image")}
    (mask,) = images["b/sub/1.png"].iter("mask")
    assert [mask.attrib[key] for key in ("left", "top", "width", "height", "rle")] == ["29", "20", "1", "1", "0, 1"]


def test_brushes_of_label_studio_pack_to_the_expected_bits() -> None:
    mask = np.array([[False, True]])
    # 32 bits 8; 5 bits 7; sizes 4, 8, 12, 16; twice: repeated, the first size, 4 values, 0 or 255
    bits = f"{8:032b}{7:05b}{3:04b}{7:04b}{11:04b}{15:04b}" + f"1{0:02b}{3:04b}{0:08b}" + f"1{0:02b}{3:04b}{255:08b}"
    packed = [int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8)]
    assert pack_mask(mask) == packed
    assert (unpack_mask(packed, 1, 2, "") == mask).all()
    literal = (
        f"{8:032b}{7:05b}{3:04b}{7:04b}{11:04b}{15:04b}"
        + f"0{0:02b}{7:04b}"
        + "".join(f"{value:08b}" for value in (9, 9, 9, 127, 9, 9, 9, 128))
    )
    others = [int(literal[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(literal), 8)]
    assert (unpack_mask(others, 1, 2, "") == mask).all()
    large = np.random.default_rng(0).random((300, 200)) > 0.001  # runs that are longer than the largest size
    assert (unpack_mask(pack_mask(large), 300, 200, "") == large).all()
    for wrong, words in ((packed[:-2], "ends too early"), (pack_mask(mask.T), None)):
        if words:
            with pytest.raises(sl.SightlineError, match=words):
                unpack_mask(wrong, 1, 2, "x")
    with pytest.raises(sl.SightlineError, match="has 8 values; expected 3 x 2 x 4"):
        unpack_mask(packed, 3, 2, "x")


def test_outlines_of_other_people_are_read(photos: Path) -> None:
    """A box of columns 3 .. 8 and rows 2 .. 9, drawn in each tool, and an ellipse."""
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:10, 3:9] = True
    percent = {"x": 100 * 3 / WIDTH, "y": 100 * 2 / HEIGHT, "width": 100 * 6 / WIDTH, "height": 100 * 8 / HEIGHT}
    studio = [{"data": {"image": "/data/upload/1/0a1b2c3d-2.png"}, "annotations": [
        {"was_cancelled": True, "result": []}, {"result": [
        {"type": "rectanglelabels", "original_width": WIDTH, "original_height": HEIGHT,
         "value": {**percent, "rotation": 0, "rectanglelabels": ["cat"]}}, {"type": "choices", "value": {}}]}]},
        {"data": {"image": "x.png"}, "annotations": []}]  # fmt: skip
    labelme = {"imagePath": "..\\elsewhere\\2.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [
        {"label": "cat", "shape_type": "rectangle", "points": [[9, 10], [3, 2]]}]}  # fmt: skip
    cvat = (f'<annotations><image name="2.png" width="{WIDTH}" height="{HEIGHT}"><box label="cat" xtl="3" ytl="2" xbr="9" '
            'ybr="10"/><tag label="x"/></image></annotations>')  # fmt: skip
    polygon = [[3, 2], [8, 2], [8, 9], [3, 9]]
    outline = {**labelme, "shapes": [{"label": "cat", "points": polygon}]}
    (photos / "labelme").mkdir()
    for tool, name, content in (
        ("label-studio", "s.json", json.dumps(studio)), ("labelme", "l.json", json.dumps(labelme)), ("cvat", "c.xml", cvat),
        ("labelme", "o.json", json.dumps(outline)),
    ):  # fmt: skip
        (photos / name).write_text(content)
        import_masks(photos / name, tool, photos / "photos", photos / f"from-{name}")
        assert (read(photos / f"from-{name}")["a/sub/2.png"] == expected).all(), name
    circle = {**labelme, "shapes": [{"label": "cat", "shape_type": "circle", "points": [[15, 10], [20, 10]]}]}
    (photos / "e.json").write_text(json.dumps(circle))
    import_masks(photos / "e.json", "labelme", photos / "photos", photos / "from-e")
    assert abs(read(photos / "from-e")["a/sub/2.png"].sum() - np.pi * 25) < 5


def test_annotations_of_stored_pixels_are_turned_with_the_image(photos: Path) -> None:
    image = Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: the first row of the file is the right side
    image.save(photos / "photos" / "a" / "turned.jpg", exif=exif)
    shape = {"label": "x", "shape_type": "rectangle", "points": [[0, 0], [WIDTH, 4]]}
    document = {"imagePath": "turned.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]}
    (photos / "t.json").write_text(json.dumps(document))
    import_masks(photos / "t.json", "labelme", photos / "photos", photos / "turned")
    expected = np.zeros((WIDTH, HEIGHT), bool)
    expected[:, -4:] = True
    assert (read(photos / "turned")["a/turned.png"] == expected).all()


def test_exchange_files_that_do_not_fit_raise(photos: Path) -> None:
    data = opened(photos)
    export_masks(data, "cvat", photos / "a.xml")
    (photos / "broken.xml").write_text("<annotations><image")
    (photos / "broken.json").write_text("[{}]")
    nothing = create_dataset("folder", root=str(photos / "photos"), val=0, test=0)["train"]
    for call, words in (
        (lambda: export_masks(data, "cvatt", photos / "b.xml"), "did you mean 'cvat'"),
        (lambda: export_masks(data, "cvat", photos / "b.json"), "ends in .xml for cvat"),
        (lambda: export_masks(data, "labelme", photos / "b.json"), "a folder, without a suffix"),
        (lambda: export_masks(data, "cvat", photos / "a.xml"), "exists already"),
        (lambda: export_masks(nothing, "cvat", photos / "c.xml"), "no image has a mask"),
        (lambda: import_masks(photos / "a.xml", "cvat", photos / "photos", photos / "masks"), "exists already"),
        (lambda: import_masks(photos / "a.xml", "cvat", photos / "photos", photos / "n", ["aa"]), "unknown label 'aa'"),
        (
            lambda: import_masks(photos / "a.xml", "cvat", photos / "avoid" / "a", photos / "n", ["b"]),
            "no annotation in",
        ),
        (
            lambda: import_masks(photos / "broken.xml", "cvat", photos / "photos", photos / "n"),
            "is not as CVAT writes it",
        ),
        (lambda: import_masks(photos / "broken.json", "label-studio", photos / "photos", photos / "n"), "Label Studio"),
        (lambda: import_masks(photos / "none.json", "coco", photos / "photos", photos / "n"), "source: nothing at"),
    ):
        with pytest.raises(sl.SightlineError) as error, pytest.warns() if "no annotation" in words else no_check():
            call()
        assert words in str(error.value)
    assert not (photos / "n").exists()


def no_check():
    from contextlib import nullcontext

    return nullcontext()


def test_maps_become_gray_images_and_masks(photos: Path) -> None:
    run = CliRunner()
    where = [f"root={photos / 'photos'}", "val=0", "test=0"]
    model = ["--model", "sightline/small_cnn", "--weights", str(photos / "w.pth"), "--size", "16"]
    network, _ = sl.load_model("sightline/small_cnn", classes=2)
    torch.save(network.state_dict(), photos / "w.pth")
    stored = run.invoke(
        app, ["explain", *model, "--data", "folder", *where, "--store", str(photos / "maps"), "--methods", "gaussian"]
    )
    assert stored.exit_code == 0, stored.output
    for to, name in (("heatmaps", "heat"), ("labelme", "labels")):
        arguments = [
            "masks",
            "export",
            "folder",
            *where,
            "--maps",
            str(photos / "maps"),
            "--to",
            to,
            "-o",
            str(photos / name),
        ]
        done = run.invoke(app, arguments)
        assert done.exit_code == 0, done.output
    heat = np.asarray(Image.open(photos / "heat" / "a" / "sub" / "0.png"))
    assert heat.shape == (HEIGHT, WIDTH)
    assert heat[:, :4].max() == 0  # beside the square that the model sees
    assert heat[HEIGHT // 2, WIDTH // 2] > 240
    done = run.invoke(app, ["masks", "import", str(photos / "labels"), "--from", "labelme", "--images", str(photos / "photos"),
                            "-o", str(photos / "found")])  # fmt: skip
    assert done.exit_code == 0, done.output
    found = read(photos / "found")["a/sub/0.png"]
    assert (found == (heat >= 0.5 * heat.max())).mean() > 0.97


def test_splits_of_a_folder_are_exported_together(photos: Path) -> None:
    for place, file in enumerate(sorted((photos / "photos").rglob("*.png"))):
        for folder in ("photos", "masks"):
            old = photos / folder / file.relative_to(photos / "photos")
            new = photos / f"split-{folder}" / ("train" if place < 2 else "test") / "ab"[place % 2] / file.name
            new.parent.mkdir(parents=True, exist_ok=True)
            if old.exists():
                new.write_bytes(old.read_bytes())
    arguments = ["masks", "export", "folder", f"root={photos / 'split-photos'}", f"masks={photos / 'split-masks'}"]
    done = CliRunner().invoke(app, [*arguments, "--to", "cvat", "-o", str(photos / "a.xml")])
    assert done.exit_code == 0, done.output
    import_masks(photos / "a.xml", "cvat", photos / "split-photos", photos / "back")
    expected = read(photos / "split-masks")
    assert read(photos / "back").keys() == expected.keys()
    assert all((read(photos / "back")[name] == expected[name]).all() for name in expected)
