"""No image is in two splits, or has two labels, by whatever names it is known."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import write_csv
from sightline import data
from sightline.data.splits import Splits
from sightline.errors import SightlineError


def noise(path: Path, key: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(key).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


def folder(root: Path, each: int = 20) -> Path:
    for label, name in enumerate(("cat", "dog")):
        for i in range(each):
            noise(root / name / f"{i}.png", 100 * label + i)
    return root


def quiet(name: str, **options: object) -> Splits:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return data.create_dataset(name, **options)


def contents(splits: Splits) -> dict[str, set[bytes]]:
    return {name: {Path(split.path(i)).read_bytes() for i in range(len(split))} for name, split in splits.items()}


def assert_apart(splits: Splits) -> None:
    found = contents(splits)
    names = sorted(found)
    assert all(not found[a] & found[b] for a in names for b in names if a < b)
    assert set(names) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("how", ["copy", "symlink", "hardlink", "folder"])
def test_copies_in_a_folder_stay_together(tmp_path: Path, how: str, seed: int) -> None:
    folder(tmp_path)
    for i in range(10):
        source, target = tmp_path / f"cat/{i}.png", tmp_path / f"cat/again {i}.png"
        if how == "copy":
            shutil.copy(source, target)
        elif how == "symlink":
            target.symlink_to(source)
        elif how == "hardlink":
            target.hardlink_to(source)
    if how == "folder":
        shutil.copytree(tmp_path / "cat", tmp_path / "store")
        shutil.rmtree(tmp_path / "cat")
        (tmp_path / "cat").mkdir()
        (tmp_path / "cat/a").symlink_to(tmp_path / "store")
        (tmp_path / "cat/b").symlink_to(tmp_path / "store")
        (tmp_path / "store").rename(tmp_path / "dog/.store")
        for link in ("a", "b"):
            (tmp_path / "cat" / link).unlink()
            (tmp_path / "cat" / link).symlink_to(tmp_path / "dog/.store")
        with pytest.warns(UserWarning, match="20 hidden"):
            splits = data.create_dataset("folder", root=str(tmp_path), seed=seed)
    else:
        splits = quiet("folder", root=str(tmp_path), seed=seed)
    assert sum(map(len, splits.values())) == (60 if how == "folder" else 50)
    assert_apart(splits)


@pytest.mark.parametrize("seed", range(6))
def test_rows_of_one_image_stay_together(tmp_path: Path, seed: int) -> None:
    folder(tmp_path)
    rows: list[dict[str, object]] = [
        {"path": f"{name}/{i}.png", "label": name} for name in ("cat", "dog") for i in range(20)
    ]
    rows += [{"path": f"dog/../cat/{i}.png", "label": "cat"} for i in range(8)] + rows[:8] + rows[20:25]
    splits = quiet("csv", path=str(write_csv(tmp_path / "list.csv", rows)), seed=seed)
    assert sum(map(len, splits.values())) == 61
    assert_apart(splits)


def test_a_copy_that_is_added_moves_no_other_image(tmp_path: Path) -> None:
    folder(tmp_path)
    before = quiet("folder", root=str(tmp_path))
    split_of = {before[name].path(i): name for name in before for i in range(len(before[name]))}
    for i in range(20):
        shutil.copy(tmp_path / f"dog/{i}.png", tmp_path / f"dog/{i} (1).png")
    after = quiet("folder", root=str(tmp_path))
    for name in after:
        for path in map(after[name].path, range(len(after[name]))):
            assert split_of[path.replace(" (1)", "")] == name


def test_contradicting_labels_are_an_error(tmp_path: Path) -> None:
    folder(tmp_path)
    shutil.copy(tmp_path / "cat/3.png", tmp_path / "dog/extra.png")
    with pytest.raises(
        SightlineError, match=r"1 images have contradicting labels: .*cat/3\.png and .*dog/extra\.png: 'cat' and 'dog'"
    ):
        data.create_dataset("folder", root=str(tmp_path))
    (tmp_path / "dog/extra.png").unlink()
    (tmp_path / "dog/extra.png").symlink_to(tmp_path / "cat/3.png")
    with pytest.raises(SightlineError, match="contradicting labels"):
        data.create_dataset("folder", root=str(tmp_path))
    rows: list[dict[str, object]] = [
        {"path": f"{name}/{i}.png", "label": name} for name in ("cat", "dog") for i in range(20)
    ]
    with pytest.raises(SightlineError, match=r"cat/0\.png: 'cat' and 'dog'"):
        data.create_dataset(
            "csv", path=str(write_csv(tmp_path / "l.csv", [*rows, {"path": "cat/0.png", "label": "dog"}]))
        )


def test_given_splits_that_share_files_warn(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        for label, name in enumerate(("cat", "dog")):
            for i in range(5):
                noise(tmp_path / part / name / f"{i}.png", 1000 * number + 100 * label + i)
    quiet("folder", root=str(tmp_path))
    shutil.copy(tmp_path / "train/cat/1.png", tmp_path / "test/cat/7.png")
    with pytest.warns(
        UserWarning, match=r"1 files have the content .*train/cat/1\.png and .*test/cat/7\.png: train and test"
    ):
        data.create_dataset("folder", root=str(tmp_path))
    (tmp_path / "test/cat/8.png").symlink_to(tmp_path / "train/cat/1.png")
    with pytest.raises(SightlineError, match=r"1 files are in two splits: .*8\.png: train and test"):
        data.create_dataset("folder", root=str(tmp_path))
    rows: list[dict[str, object]] = [
        {"path": f"train/{name}/{i}.png", "label": name, "split": part}
        for part, numbers in (("train", range(4)), ("test", range(3, 5)))
        for name in ("cat", "dog")
        for i in numbers
    ]
    with pytest.raises(SightlineError, match="2 files are in two splits"):
        data.create_dataset("csv", path=str(write_csv(tmp_path / "list.csv", rows)))


def test_images_of_coco_are_in_one_split(tmp_path: Path) -> None:
    for i in range(8):
        noise(tmp_path / f"images/{i}.png", i)

    def write(name: str, files: list[int]) -> None:
        box = {"bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
        content = {
            "images": [{"id": n, "file_name": f"{i}.png", "width": 8, "height": 8} for n, i in enumerate(files)],
            "annotations": [{**box, "id": n, "image_id": n, "category_id": 1 + i % 2} for n, i in enumerate(files)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        (tmp_path / name).write_text(json.dumps(content))

    options = {"train": "a.json", "test": "b.json", "train_images": "images", "test_images": "images", "val": 0}
    write("a.json", [0, 1, 2, 3])
    write("b.json", [4, 5, 6, 7])
    assert len(quiet("coco", root=str(tmp_path), **options)["test"]) == 4
    write("a.json", [0, 1, 2, 3, 0])
    with pytest.raises(SightlineError, match=r"are one file, 0\.png; merge them"):
        data.create_dataset("coco", root=str(tmp_path), **options)
    noise(tmp_path / "images/9.png", 1)
    write("a.json", [0, 1, 2, 3, 9])
    write("b.json", [4, 5])
    for seed in range(6):
        splits = quiet("coco", root=str(tmp_path), **options | {"val": 1, "seed": seed})
        assert_apart(splits)
        assert sum(map(len, splits.values())) == 7
        assert_apart(quiet("coco", root=str(tmp_path), **options | {"val": 1, "seed": seed, "labels": "multiple"}))
    write("b.json", [3, 4, 5])
    with pytest.raises(SightlineError, match=r"1 files are in two splits: .*3\.png: train and test"):
        data.create_dataset("coco", root=str(tmp_path), **options)


def test_an_image_that_fills_a_class_is_a_placeholder(tmp_path: Path) -> None:
    """Failed downloads leave one image many times: it cannot be kept together, and there is a warning."""
    folder(tmp_path)
    for i in range(1, 15):
        shutil.copy(tmp_path / "cat/0.png", tmp_path / f"cat/{i}.png")
    shutil.copy(tmp_path / "dog/0.png", tmp_path / "dog/1.png")
    with pytest.warns(UserWarning, match="15 images have the content of .*cat/0.png"):
        splits = data.create_dataset("folder", root=str(tmp_path), seed=1)
    assert set(splits) == {"train", "val", "test"}
    parts = [
        name
        for name in splits
        for i in range(len(splits[name]))
        if splits[name].path(i).endswith(("g/0.png", "g/1.png"))
    ]
    assert len(parts) == 2
    assert len(set(parts)) == 1


def test_empty_files_are_left_to_the_reader(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in ("cat/1.png", "dog/2.png", "dog/3.png"):
        (tmp_path / name).write_bytes(b"")
    assert sum(len(split.skipped) for split in quiet("folder", root=str(tmp_path), skip_corrupt=True).values()) == 3


def test_equal_files_that_are_no_images_are_not_contradicting_labels(tmp_path):
    """Failed downloads leave empty files or the same page in many classes; they are reported as unreadable instead."""
    root = folder(tmp_path / "photos")
    for name in ("cat", "dog"):
        (root / name / "empty.jpg").touch()
        (root / name / "page.jpg").write_text("<html>not found</html>")
    splits = data.create_dataset("folder", root=str(root), val=0, test=0, skip_corrupt=True)
    assert len(splits["train"].skipped) == 4
    noise(root / "cat" / "same.png", 0)
    noise(root / "dog" / "same.png", 0)
    with pytest.raises(SightlineError, match="1 images have contradicting labels"):
        data.create_dataset("folder", root=str(root), val=0, test=0, skip_corrupt=True)
