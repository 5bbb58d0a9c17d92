"""CSV files as people write them: spaces, empty values, blank lines, similar names."""

from pathlib import Path

import numpy as np
import pytest

from layouts import write_image, write_mask
from sightline import SightlineError, data


def make(folder: Path, content: str, **options: object) -> data.Splits:
    for name in "abcdef":
        write_image(folder / f"{name}.jpg")
    (folder / "list.csv").write_text(content)
    return data.create_dataset("csv", path=str(folder / "list.csv"), **options)


def test_spaces_around_names_and_values_do_not_count(tmp_path: Path) -> None:
    content = "path, label , split\na.jpg,cat , train\nb.jpg, cat,train\nc.jpg,dog,train \nd.jpg ,\tdog,test\n"
    splits = make(tmp_path, content, val=0, classes=["dog ", "cat"])
    assert splits.classes == ["dog", "cat"]
    assert splits["train"].labels.tolist() == [1, 1, 0]
    assert splits["test"].labels.tolist() == [0]


@pytest.mark.parametrize("column", ["path", "label", "group"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_is_rejected_with_its_line(tmp_path: Path, column: str, value: str) -> None:
    row = {"path": "b.jpg", "label": "dog", "group": "g"} | {column: value}
    content = f"path,label,group\na.jpg,cat,g\n\n   \n{','.join(row.values())}\n"
    with pytest.raises(SightlineError, match=f"line 5: the {column} is empty"):
        make(tmp_path, content)


@pytest.mark.parametrize("column", ["path", "label", "group"])
def test_labels_that_pandas_reads_as_missing_raise_with_their_line(tmp_path: Path, column: str) -> None:
    pandas = pytest.importorskip("pandas")
    missing = pandas._libs.parsers.STR_NA_VALUES - {""}
    for value in [*sorted(missing), str(pandas.NaT)]:
        row = {"path": "b.jpg", "label": "dog", "group": "g"} | {column: value}
        with pytest.raises(SightlineError, match=r"line 3: the .*, which stands for a missing value"):
            make(tmp_path, f"path,label,group\na.jpg,cat,g\n{','.join(row.values())}\n")


def test_a_class_that_is_called_like_a_missing_value_is_listed(tmp_path: Path) -> None:
    content = "path,label\na.jpg,None\nb.jpg,crack\nc.jpg,nano\n"
    with pytest.raises(SightlineError, match=r"line 2: the label is 'None', .* or list it in classes="):
        make(tmp_path, content)
    assert make(tmp_path, content, val=0, test=0, classes=["None", "crack", "nano"])["train"].labels.tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("value", ["", "nan", "<NA>", "None"])
def test_missing_masks_and_boxes_are_no_masks_and_boxes(tmp_path: Path, value: str) -> None:
    write_mask(tmp_path / "m.png", np.ones((24, 32)))
    v = value
    content = f"path,label,mask,avoid,x1,y1,x2,y2\na.jpg,cat,m.png,{v},1,2,3,4\nb.jpg,dog,{v},{v},{v},{v},{v},{v}\n"
    train = make(tmp_path, content, val=0, test=0)["train"]
    assert train.has_mask.tolist() == train.has_boxes.tolist() == [True, False]
    assert not train.has_avoid.any()
    with pytest.raises(SightlineError, match=r"line 3: '.*' is not a finite number"):
        make(tmp_path, content.replace(f"{v},{v},{v},{v}\n", f"1,{v},3,4\n"), val=0, test=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a line with the columns path, label"),
        ("\n \n", "is empty"),
        ("path,label\n", "lists no images"),
        ("path;label\na.jpg;cat\n", r"has the columns \['path;label'\]; 'path' is missing; it is separated by ';'"),
        ("path\tlabel\na.jpg\tcat\n", r"it is separated by '\\t', and commas are expected"),
        ("path,label,label\na.jpg,cat,dog\n", "two columns 'label'"),
        ("path,label\na,b.jpg,cat\n", "line 2: 3 values for 2 columns"),
        ('path,label\n"a.jpg,cat\nb.jpg,dog\n', "cannot read"),
        ("path,label,x1,y1\na.jpg,cat,1,2\n", "'x2' is missing"),
        ("path,label,x2\na.jpg,cat,1\n", "'x1' is missing"),
    ],
)
def test_a_table_of_another_form_raises(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        make(tmp_path, content)


def test_a_table_in_another_encoding_raises(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\na.jpg,cat\n".encode("utf-16"))
    with pytest.raises(SightlineError, match=r"cannot read .*list\.csv.*; save it as UTF-8"):
        data.create_dataset("csv", path=str(tmp_path / "list.csv"))


@pytest.mark.parametrize("column", ["Mask", "masks", "spilt", "xmin", "bbox", "W"])
def test_a_column_that_is_not_read_by_mistake(tmp_path: Path, column: str) -> None:
    content = f"path,label,author,{column}\na.jpg,cat,me,\nb.jpg,dog,me,\n"
    with pytest.warns(UserWarning, match=f"the columns '{column}' are not read"):
        make(tmp_path, content, val=0, test=0)


@pytest.mark.parametrize("names", [("Cat", "cat"), ("big cat", "big  cat"), ("caf\u00e9", "cafe\u0301")])
def test_classes_that_look_alike_warn(tmp_path: Path, names: tuple[str, str]) -> None:
    content = f"path,label\na.jpg,{names[0]}\nb.jpg,{names[1]}\n"
    with pytest.warns(UserWarning, match="differ only in case, spaces or accents"):
        make(tmp_path, content, val=0, test=0)


def test_paths_with_the_backslashes_of_windows_are_found(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_image(tmp_path / "images" / name)
    rows = [f"images\\{name}.png,{label},train" for name, label in zip("abcd", ("cat", "dog", "cat", "dog"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    splits = data.create_dataset("csv", path=str(tmp_path / "list.csv"), val=0)
    assert splits["train"].labels.tolist() == [0, 1, 0, 1]
    assert splits["train"][3].image.shape[0] == 3


def test_misspelled_split_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name)
    (tmp_path / "list.csv").write_text("path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,dog,tset\n")
    with pytest.warns(UserWarning, match="a split has the name 'tset'; was 'test' meant"):
        data.create_dataset("csv", path=str(tmp_path / "list.csv"), val=0)
