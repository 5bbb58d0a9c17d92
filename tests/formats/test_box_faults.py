"""Boxes in other units, of other images and outside of them, in CSV, VOC and COCO files."""

from pathlib import Path

import pytest
from PIL import Image

from layouts import write_image
from sightline import SightlineError, data
from sightline.data.file_dataset import Record
from sightline.formats.box_files import Box, BoxFile, with_boxes

VOC = """<annotation>{filename}<size><width>{width}</width><height>{height}</height></size>
<object><name> cat </name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
</object></annotation>"""


def write_voc(
    path: Path, filename: str = "", box: tuple[float, ...] = (3, 4, 12, 11), size: tuple[int, int] = (32, 24)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = f"<filename>{filename}</filename>" if filename else ""
    path.write_text(VOC.format(filename=named, width=size[0], height=size[1], box=box))


def write_turned(path: Path, orientation: int = 6) -> Path:
    """An image that is stored with 32 x 24 pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24)).save(path, exif=exif)
    return path


def test_two_xml_files_of_one_folder_that_name_one_image_raise(tmp_path: Path) -> None:
    write_voc(tmp_path / "a.xml", "a.jpg")
    write_voc(tmp_path / "b.xml", "a.jpg")
    with pytest.raises(SightlineError, match=r"a\.xml and .*b\.xml both name the image a\.jpg"):
        BoxFile(tmp_path)


def test_two_xml_files_with_images_of_two_folders_keep_their_own_boxes(tmp_path: Path) -> None:
    write_voc(tmp_path / "cat/1.xml", "1.jpg", (1, 1, 5, 5))
    write_voc(tmp_path / "dog/1.xml", "1.jpg", (2, 2, 6, 6))
    write_voc(tmp_path / "dog/v1.2.xml", "v1.2")
    boxes = BoxFile(tmp_path)
    assert boxes.of("images/cat/1.jpg") == [Box(0, 0, 5, 5, label="cat")]
    assert boxes.of("images/dog/1.jpg") == [Box(1, 1, 6, 6, label="cat")]
    assert boxes.of("images/v1.2.jpg") == [Box(2, 3, 12, 11, label="cat")]


def test_an_xml_file_of_another_size_raises_unless_it_is_zero(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.jpg", size=(32, 24))
    write_voc(tmp_path / "xml/a.xml", "a.jpg", size=(64, 48))
    with pytest.raises(SightlineError, match=r"a\.jpg are for 64 x 48 pixels .*; the image has 32 x 24"):
        BoxFile(tmp_path / "xml").of(str(image))
    write_voc(tmp_path / "xml/a.xml", "a.jpg", size=(0, 0))  # as some tools write it
    assert BoxFile(tmp_path / "xml").of(str(image)) == [Box(2, 3, 12, 11, label="cat")]


@pytest.mark.parametrize(("size", "expected"), [((32, 24), (13, 2, 21, 12)), ((24, 32), (2, 3, 12, 11))])
def test_the_size_tells_on_which_pixels_of_a_turned_image_a_box_is(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, ...]
) -> None:
    image = write_turned(tmp_path / "a.jpg")
    write_voc(tmp_path / "xml/a.xml", size=size)
    (box,) = BoxFile(tmp_path / "xml").of(str(image))
    assert box.xyxy == expected


def test_a_turned_image_of_unknown_size_warns(tmp_path: Path) -> None:
    image = write_turned(tmp_path / "a.jpg", 2)
    write_voc(tmp_path / "xml/a.xml")
    with pytest.warns(UserWarning, match="do not tell whether they count the stored or the turned pixels"):
        BoxFile(tmp_path / "xml").of(str(image))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 4, 5, 8), r"a\.xml: the box 10, 4, 5, 8 has no area; .* look like x, y, width, height"),
        (
            (0.1, 0.2, 0.5, 0.6),
            r"a\.xml: the box 0\.1, 0\.2, 0\.5, 0\.6 is within the first pixel; .* fractions of the image",
        ),
    ],
)
def test_a_voc_box_in_other_units_raises(tmp_path: Path, box: tuple[float, ...], message: str) -> None:
    write_voc(tmp_path / "a.xml", box=box)
    with pytest.raises(SightlineError, match=message):
        BoxFile(tmp_path)


def test_an_xml_file_that_is_not_voc_raises(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<svg/>")
    with pytest.raises(SightlineError, match=r"a\.xml is not a Pascal VOC annotation: it holds <svg>"):
        BoxFile(tmp_path)


WRONG_BOXES = [
    ("0.1,0.2,0.5,0.6", "line 3: the box 0.1, 0.2, 0.5, 0.6 is within the first pixel.*look like fractions"),
    ("0,0,0.5,1", "line 3: .*look like fractions"),
    ("20,10,8,6", "line 3: the box 20, 10, 8, 6 has no area.*look like x, y, width, height"),
    ("5,5,5,9", "line 3: .*has no area"),
    ("20,10,40,20", r"line 3: the box 20, 10, 40, 20 is outside the image of 32 x 24 pixels.*in another size"),
    ("-9,2,8,9", "line 3: .*is outside the image"),
    ("40,2,50,9", "line 3: .*is outside the image"),
    ("2,20,9,30", "line 3: .*is outside the image .*look like y1, x1, y2, x2"),
    ("250,250,700,800", "line 3: .*is outside the image"),
    ("1,2,three,4", "line 3: 'three' is not a finite number"),
    ("1,2,inf,4", "line 3: 'inf' is not a finite number"),
    ("1,2,,4", "line 3: '' is not a finite number"),
]


@pytest.mark.parametrize(("box", "message"), WRONG_BOXES)
@pytest.mark.parametrize("own", [True, False])
def test_a_csv_box_that_is_not_in_pixels_of_its_image(tmp_path: Path, box: str, message: str, own: bool) -> None:
    for name in ("cat/a", "cat/b", "dog/c", "dog/d"):
        write_image(tmp_path / f"{name}.jpg", size=(32, 24))
    lines = [
        f"{name}.jpg,{name[:3]},{edges}" for name, edges in (("cat/a", "1,1,5,5"), ("dog/c", box), ("dog/d", ",,,"))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *lines, "cat/b.jpg,cat,,,,"]))
    file = str(tmp_path / "a.csv")
    name, options = ("csv", {"path": file}) if own else ("folder", {"root": str(tmp_path), "boxes": file})
    with pytest.raises(SightlineError, match=message):
        data.create_dataset(name, **options)


def test_a_box_that_reaches_out_by_rounding_is_accepted(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.jpg", size=(32, 24))
    (tmp_path / "a.csv").write_text("path,x1,y1,x2,y2\na.jpg,-0.5,0,33,24.5\n")
    (record,) = with_boxes([Record(image, 0)], tmp_path / "a.csv")
    assert record.boxes == ((-0.5, 0, 33, 24.5),)  # the loader cuts them off
