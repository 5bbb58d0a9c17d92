import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import write_csv, write_image, write_mask
from sightline import data
from sightline.data.splits import Splits
from sightline.errors import SightlineError


def class_folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 10) -> Path:
    for name in classes:
        for i in range(each):
            write_image(root / name / f"{i}.jpg")
    return root


def paths(splits: Splits, split: str) -> set[str]:
    return {splits[split][i].path for i in range(len(splits[split]))}


def test_class_folders_are_divided(tmp_path: Path) -> None:
    splits = data.create_dataset("folder", root=str(class_folders(tmp_path)), val=0.1, test=3)
    assert splits.classes == ["cat", "dog"]
    assert {name: split.labels.bincount().tolist() for name, split in splits.items()} == {
        "train": [6, 6],
        "val": [1, 1],
        "test": [3, 3],
    }
    assert len(paths(splits, "train") | paths(splits, "val") | paths(splits, "test")) == 20
    assert splits["train"][0].mask is None


def test_split_folders_are_kept_and_a_missing_val_is_drawn(tmp_path: Path) -> None:
    for split in ("train", "test", "hard"):
        class_folders(tmp_path / split)
    splits = data.create_dataset("folder", root=str(tmp_path), val=2, test=5)
    assert {name: len(split) for name, split in splits.items()} == {"train": 16, "val": 4, "test": 20, "hard": 20}
    assert all("/train/" in path for path in paths(splits, "val"))


def test_parallel_masks_are_matched_by_path_and_may_be_missing(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", each=3)
    values = np.zeros((24, 32))
    values[:8], values[8:16] = 7, 200
    write_mask(tmp_path / "masks/cat/1.png", values)
    splits = data.create_dataset(
        "folder", root=str(tmp_path / "images"), masks=str(tmp_path / "masks"), ignore=200, val=0, test=0
    )
    train = splits["train"]
    assert train.has_mask.tolist() == [False, True, False, False, False, False]
    assert [train[i].mask is not None for i in range(6)] == train.has_mask.tolist()
    assert train[1].mask[:, 0].tolist() == [1] * 8 + [255] * 8 + [0] * 8


def test_palette_masks_give_their_indices(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", each=2)
    picture = Image.fromarray(np.full((24, 32), 1, np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 0, 0, 0])  # index 1 is black, too: only the index tells it from the background
    (tmp_path / "masks/cat").mkdir(parents=True)
    picture.save(tmp_path / "masks/cat/0.png")
    splits = data.create_dataset("folder", root=str(tmp_path / "images"), masks=str(tmp_path / "masks"), val=0, test=0)
    assert (splits["train"][0].mask == 1).all()


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    class_folders(tmp_path, each=2)
    Image.new("L", (32, 24), 40).save(tmp_path / "cat/0.jpg")
    Image.new("RGBA", (32, 24), (10, 20, 30, 0)).save(tmp_path / "dog/2.png")
    train = data.create_dataset("folder", root=str(tmp_path), val=0, test=0)["train"]
    assert all(train[i].image.shape == (3, 24, 32) for i in range(len(train)))


def test_folder_invalid_layouts_raise(tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="nothing at"):
        data.create_dataset("folder", root=str(tmp_path / "absent"))
    (tmp_path / "empty/cat").mkdir(parents=True)
    with pytest.raises(SightlineError, match="holds no images"):
        data.create_dataset("folder", root=str(tmp_path / "empty"))
    with pytest.raises(SightlineError, match="two or more"):
        data.create_dataset("folder", root=str(class_folders(tmp_path / "one", ("cat",))))
    images = class_folders(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    with pytest.raises(SightlineError, match="masks: nothing in"):
        data.create_dataset("folder", root=str(images), masks=str(tmp_path / "masks"))
    for i in range(10):
        write_mask(tmp_path / f"masks/cat/{i}.png", np.zeros((10, 12)))
    splits = data.create_dataset("folder", root=str(images), masks=str(tmp_path / "masks"), val=0, test=0)
    with pytest.raises(SightlineError, match=r"masks/cat/0\.png is 12 x 10 .*images/cat/0\.jpg is 32 x 24"):
        splits["train"][0]


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_unreadable_images_are_named_or_skipped_and_counted(tmp_path: Path, content: bytes | None) -> None:
    class_folders(tmp_path)
    bad = tmp_path / "cat/3.jpg"
    whole = tmp_path / "dog/0.jpg"
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(whole)
    bad.write_bytes(whole.read_bytes()[:900] if content is None else content)  # None: truncated
    splits = data.create_dataset("folder", root=str(tmp_path), val=0, test=0)
    with pytest.raises(SightlineError, match=r"cannot read the image .*cat/3\.jpg"):
        splits["train"][3]
    train = data.create_dataset("folder", root=str(tmp_path), val=0, test=0, skip_corrupt=True)["train"]
    assert len(train) == 19
    assert train.skipped == [str(bad)]
    assert [train[i].index for i in range(19)] == list(range(19))


def rows(tmp_path: Path, **columns: list[str]) -> list[dict[str, object]]:
    count = len(next(iter(columns.values())))
    for i in range(count):
        write_image(tmp_path / f"i/{i}.png")
    return [{"path": f"i/{i}.png", **{name: values[i] for name, values in columns.items()}} for i in range(count)]


def test_csv_with_every_column_is_read(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.full((24, 32), 255))
    table = rows(
        tmp_path,
        label=["10", "9", "10", "9"],
        mask=["m.png", "", "", "m.png"],
        split=["train", "train", "test", "test"],
        group=["sea", "land", "land", "sea"],
        note=["x"] * 4,
    )
    splits = data.create_dataset("csv", path=str(write_csv(tmp_path / "list.csv", table)), val=0)
    assert splits.classes == ["9", "10"]  # as numbers
    assert splits.groups == ["land", "sea"]
    assert splits["train"].labels.tolist() == [1, 0]
    assert splits["train"].has_mask.tolist() == [True, False]
    assert splits["test"].group_ids.tolist() == [0, 1]
    assert splits["test"][1].group == 1
    assert (splits["train"][0].mask == 1).all()  # 255 is the object, unless `ignore` says otherwise
    assert splits.describe()["test"]["groups"] == {"land": 1, "sea": 1}


def test_csv_without_splits_is_divided(tmp_path: Path) -> None:
    table = rows(tmp_path, label=["a", "b"] * 10)
    path = str(write_csv(tmp_path / "list.csv", table))
    splits = data.create_dataset("csv", path=path, classes=["b", "a"], val=2, test=2)
    assert splits.classes == ["b", "a"]
    assert {name: split.labels.bincount().tolist() for name, split in splits.items()} == {
        "train": [6, 6],
        "val": [2, 2],
        "test": [2, 2],
    }


def test_csv_invalid_rows_raise_with_their_line(tmp_path: Path) -> None:
    def create(table: list[dict[str, object]], **options: object) -> Splits:
        return data.create_dataset("csv", path=str(write_csv(tmp_path / "list.csv", table)), val=0, test=0, **options)

    good = rows(tmp_path, label=["cat", "dog", "cat", "dog"])
    with pytest.raises(SightlineError, match=r"line 3: 'dog'.*known: bird, cat"):
        create(good, classes=["cat", "bird"])
    with pytest.raises(SightlineError, match=r"1 files are missing.*absent\.png"):
        create([*good, {"path": "absent.png", "label": "cat"}])
    with pytest.raises(SightlineError, match="'label' is missing"):
        create([{"path": "i/0.png"}])
    with pytest.raises(SightlineError, match="two or more"):
        create([good[0], good[2]])
    with pytest.raises(SightlineError, match="'train' is missing"):
        create([{**row, "split": "test"} for row in good])
    with pytest.raises(SightlineError, match="some rows have a split and some have none"):
        create([{**row, "split": "train" if i else ""} for i, row in enumerate(good)])
    with pytest.raises(SightlineError, match="class 'dog' has no image to train on"):
        create([{**row, "split": "train" if row["label"] == "cat" else "test"} for row in good])
    with pytest.raises(SightlineError, match="line 2: the group is empty"):
        create([{**row, "group": str(i or "")} for i, row in enumerate(good)])
    (tmp_path / "list.csv").write_text("path,label\n")
    with pytest.raises(SightlineError, match="lists no images"):
        data.create_dataset("csv", path=str(tmp_path / "list.csv"))


def test_names_are_known() -> None:
    assert {"pets", "folder", "csv", "recomposed", "digits"} <= set(data.DATASETS.names())
    with pytest.raises(SightlineError, match="unknown dataset 'pet'; did you mean 'pets'"):
        data.create_dataset("pet")


def test_an_unknown_split_is_answered_with_the_known(tmp_path: Path) -> None:
    splits = data.create_dataset("folder", root=str(class_folders(tmp_path)))
    with pytest.raises(SightlineError, match="unknown split 'tests'; did you mean 'test'"):
        splits["tests"]


def test_a_name_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    class_folders(tmp_path, each=3)
    name = os.fsencode(tmp_path / "cat") + b"/\xe9t\xe9.jpg"
    os.rename(tmp_path / "cat/0.jpg", name)
    with pytest.raises(SightlineError, match=r"1 files have a name that is not UTF-8, .*xe9t.*rename them"):
        data.create_dataset("folder", root=str(tmp_path), val=0, test=0)
