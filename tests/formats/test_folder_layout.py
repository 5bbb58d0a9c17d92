"""Which folders are splits and classes, and that what is left out is counted and named."""

import os
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from layouts import write_image, write_mask
from sightline import data
from sightline.data.image_listing import list_images, scan_images
from sightline.errors import SightlineError
from sightline.formats.folder_layout import read_layout


def make(root: Path, *files: str) -> Path:
    for number, file in enumerate(files):
        if file.endswith("/"):
            (root / file).mkdir(parents=True)
        else:
            write_image(root / file, (number, 90, 200))
    return root


def layout(root: Path, **options: Sequence[Path]) -> dict[str, dict[str, list[str]]]:
    """By split and class, the names of the images; nothing may be left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_layout(root, **options)
    return by_class(found, root)


def left_out(root: Path, *expected: str, **options: Sequence[Path]) -> dict[str, dict[str, list[str]]]:
    with pytest.warns(UserWarning, match="files are left out") as caught:
        found = read_layout(root, **options)
    (warning,) = caught
    assert all(each in str(warning.message) for each in expected), str(warning.message)
    return by_class(found, root)


def by_class(found, root: Path) -> dict[str, dict[str, list[str]]]:
    return {
        split: {
            name: [path.relative_to(root).as_posix() for path, place in images if place == label]
            for label, name in enumerate(found.classes)
        }
        for split, images in found.images.items()
    }


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "valid", "Test"),
        ("training_set", "validation_set", "test_set"), ("Train", "Valid", "TESTING"), ("train-images", "val", "test"),
        ("seg_train", "seg_val", "seg_test"), ("my chest train", "my chest valid", "My chest Test"),
    ],
)  # fmt: skip
def test_splits_by_all_their_names(tmp_path: Path, train: str, val: str, test: str) -> None:
    files = [f"{part}/{name}/{i}.png" for part in (train, val, test) for name in ("cat", "dog") for i in range(4)]
    splits = data.create_dataset("folder", root=str(make(tmp_path, *files)))
    assert {name: (len(split), split.classes) for name, split in splits.items()} == {
        name: (8, ["cat", "dog"]) for name in ("train", "val", "test")
    }
    assert all(f"/{train}/" in splits["train"].path(i) for i in range(8))


@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("train", "test"), ("Training", "valid")])
@pytest.mark.parametrize("both", [True, False])
def test_splits_in_nested_folders_of_the_same_name_are_found(
    tmp_path: Path, names: tuple[str, str], both: bool
) -> None:
    """As the data set of Intel's scenes is unpacked, with images for a prediction that have no class."""
    train, other = names
    at = {train: f"{train}/{train}", other: f"{other}/{other.upper()}" if both else other}
    make(tmp_path, *(f"{at[part]}/{name}/{i}.png" for part in names for name in ("cat", "dog") for i in range(3)))
    make(tmp_path, "seg_pred/seg_pred/7.png", "seg_pred/seg_pred/8.png", f"{train}/0.png", f"{train}/{train}/0.png")
    found = left_out(
        tmp_path, "2 in folders that are not splits", f"2 outside the folders of classes, such as {train}/0.png"
    )
    assert found["train"]["cat"] == [f"{train}/{train}/cat/{i}.png" for i in range(3)]
    assert len(found) == 2
    assert all([len(some) for some in part.values()] == [3, 3] for part in found.values())


def test_a_folder_of_the_same_name_in_a_class_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, "cat/cat/tabby/0.png", "cat/cat/1.png", "dog/dog/2.png")
    found = layout(tmp_path)
    assert found == {"": {"cat": ["cat/cat/1.png", "cat/cat/tabby/0.png"], "dog": ["dog/dog/2.png"]}}


def test_a_folder_moved_into_one_of_its_name_is_divided_as_before(tmp_path: Path) -> None:
    files = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)]
    plain = data.create_dataset("folder", root=str(make(tmp_path / "a", *(f"train/{file}" for file in files))))
    moved = data.create_dataset("folder", root=str(make(tmp_path / "b", *(f"train/train/{file}" for file in files))))
    for name in ("train", "val"):
        one, other = ([Path(s[name].path(i)).parts[-2:] for i in range(len(s[name]))] for s in (plain, moved))
        assert one == other


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["all/cat/0.png", "all/dog/0.png"], r"one class folder, all, with the folders cat, dog; .* give root=.*/all$"),
        (["data/train/cat/0.png", "data/test/cat/0.png"], r"folders test, train; .* give root=.*/data$"),
        (["train/images/cat/0.png", "train/images/dog/0.png"], r"one class folder, images, .*, move them up"),
    ],
)
def test_classes_below_a_single_folder_are_rejected(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        read_layout(make(tmp_path, *files))


def test_a_class_that_ends_like_a_split_stays_a_class(tmp_path: Path) -> None:
    make(tmp_path, "freight_train/0.png", "freight_car/0.png", "crash-test/0.png")
    assert set(layout(tmp_path)) == {""}


def test_other_splits_keep_their_names_and_other_folders_are_named(tmp_path: Path) -> None:
    make(tmp_path, *(f"{part}/{name}/0.png" for part in ("Train", "hard_test") for name in ("cat", "dog")))
    assert set(layout(tmp_path)) == {"train", "hard_test"}
    make(tmp_path, "figures/all/1.png", "masks/cat/0.png", "Train/loose.png")
    found = left_out(tmp_path, "2 in folders that are not splits", "1 outside the folders of classes", "loose.png")
    assert found["train"] == {"cat": ["Train/cat/0.png"], "dog": ["Train/dog/0.png"]}


def test_a_test_folder_without_classes_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/0.png", "train/dog/0.png", "test/1.png", "test/2.png")
    assert set(left_out(tmp_path, "2 outside the folders of classes, such as test/1.png")) == {"train"}


def test_names_of_splits_can_be_classes(tmp_path: Path) -> None:
    make(tmp_path, "bus/0.png", "car/0.png", "train/0.png", "train/model/1.png")
    (tmp_path / "train/model/1.png").unlink()
    (tmp_path / "train/model").rmdir()
    assert set(layout(tmp_path)[""]) == {"bus", "car", "train"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/0.png", "test/0.png"], "look like splits, but hold no class folders"),
        (["cat/0.png", "dog/0.png", "test/cat/0.png"], "class folders and, next to them, the folder test of a split"),
        (["train/cat/0.png", "Training/cat/0.png"], "for one split; join them"),
        (["Cat/0.png", "cat/1.png", "dog/1.png"], "the classes 'Cat' and 'cat' in .* differ only in spelling"),
        (["train/cat/0.png", "train/dog/0.png", "test/cat/"], "test holds no images"),
        (["0.png"], "holds no images in class folders"),
    ],
)
def test_folders_that_are_mixed_up_are_rejected(tmp_path: Path, files: list[str], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SightlineError, match=message):
            read_layout(make(tmp_path, *files))


def test_two_splits_without_train(tmp_path: Path) -> None:
    make(tmp_path, *(f"{part}/{name}/0.png" for part in ("Valid", "Testing") for name in ("cat", "dog")))
    with pytest.raises(SightlineError, match=r"the splits are \['test', 'val'\]; 'train' is missing"):
        data.create_dataset("folder", root=str(tmp_path))


def test_masks_are_not_images(tmp_path: Path) -> None:
    make(
        tmp_path,
        "cat/0.png",
        "cat/masks/0.png",
        "cat/deep/Mask/7.png",
        "dog/0.png",
        "dog/0_mask.png",
        "dog/0_mask_1.png",
    )
    make(tmp_path, "masks/cat/0.png", "dog/face_mask.png")
    found = left_out(tmp_path, "3 in folders of masks", "2 masks next to their images, such as dog/0_mask.png")
    assert found == {"": {"cat": ["cat/0.png"], "dog": ["dog/0.png", "dog/face_mask.png"]}}


def test_mask_is_a_class_like_another(tmp_path: Path) -> None:
    make(tmp_path, "mask/0.png", "no_mask/0.png")
    assert set(layout(tmp_path)[""]) == {"mask", "no_mask"}


@pytest.mark.parametrize("place", ["masks", "annotated", "extra/masks"])
def test_the_folder_of_masks_may_be_inside(tmp_path: Path, place: str) -> None:
    make(tmp_path, "cat/0.png", "dog/0.png")
    write_mask(tmp_path / place / "cat/0.png", np.ones((24, 32)))
    if place.startswith("extra"):
        (tmp_path / "extra").rename(tmp_path / "dog/extra")
        place = "dog/extra/masks"
    assert layout(tmp_path, masks=[tmp_path / place]) == {"": {"cat": ["cat/0.png"], "dog": ["dog/0.png"]}}
    splits = data.create_dataset("folder", root=str(tmp_path), masks=str(tmp_path / place), val=0, test=0)
    assert splits["train"].has_mask.tolist() == [True, False]


def test_linked_folders_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    make(tmp_path, "store/a/1.png", "store/b/2.png", "images/cat/0.png", "images/dog/0.png")
    os.symlink(tmp_path / "store/a", tmp_path / "images/cat/more")
    os.symlink(tmp_path / "store/b", tmp_path / "images/bird")
    os.symlink(tmp_path / "images", tmp_path / "images/cat/all")
    os.symlink(tmp_path / "store/b", tmp_path / "store/a/there")
    os.symlink(tmp_path / "store/a", tmp_path / "store/b/back")
    found = layout(tmp_path / "images")[""]
    assert found["bird"] == ["bird/2.png", "bird/back/1.png"]
    assert found["cat"] == ["cat/0.png", "cat/more/1.png", "cat/more/there/2.png"]
    assert found["dog"] == ["dog/0.png"]


def test_suffixes_that_are_read_and_those_that_are_named(tmp_path: Path) -> None:
    make(tmp_path, *(f"cat/{suffix}.{suffix}" for suffix in ("jfif", "avif", "JPE", "jp2", "ppm", "tga")), "dog/0.png")
    assert len(layout(tmp_path)[""]["cat"]) == 6
    splits = data.create_dataset("folder", root=str(tmp_path), val=0, test=0)
    assert all(splits["train"][i].image.shape == (3, 24, 32) for i in range(7))
    for name in ("1.heic", "2.HEIC", "3.dcm"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "cat/notes.txt").write_text("x")
    left_out(tmp_path, "2 of a kind that Pillow cannot read (.heic)", "1 of a kind that Pillow cannot read (.dcm)")
    with pytest.warns(UserWarning, match="3 files are left out"):
        assert len(list_images(tmp_path)) == 7


def test_hidden_files_and_those_of_systems_are_named(tmp_path: Path) -> None:
    make(
        tmp_path, "cat/0.png", "dog/0.png", "cat/._0.png", "__MACOSX/cat/0.png", ".trash/cat/0.png", "cat/@eaDir/0.png"
    )
    found = left_out(tmp_path, "4 files are left out: 4 hidden, such as .trash/cat/0.png")
    assert found == {"": {"cat": ["cat/0.png"], "dog": ["dog/0.png"]}}


def test_a_folder_named_like_an_image_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path, "cat/a.jpg/0.png", "dog/0.png")
    assert layout(tmp_path)[""]["cat"] == ["cat/a.jpg/0.png"]
    with pytest.raises(SightlineError, match="cannot read the folder"):
        scan_images(tmp_path / "absent")


def test_an_empty_class_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "cat/0.png", "dog/0.png", "empty/")
    with pytest.raises(SightlineError, match="the class 'empty' has no image to train on"):
        data.create_dataset("folder", root=str(tmp_path), val=0, test=0)


def test_two_images_do_not_share_a_mask(tmp_path: Path) -> None:
    make(tmp_path / "images", "cat/a.jpg", "cat/a.png", "dog/b.png", "dog/b.jpeg")
    write_mask(tmp_path / "masks/cat/c.png", np.ones((24, 32)))
    write_mask(tmp_path / "masks/cat/a.png", np.ones((24, 32)))
    options = {"root": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "val": 0, "test": 0}
    with pytest.raises(SightlineError, match=r"masks/cat/a\.png would be the mask of both .*a\.jpg and .*a\.png"):
        data.create_dataset("folder", **options)
    (tmp_path / "images/cat/a.jpg").unlink()
    with pytest.warns(UserWarning, match="1 masks that belong to no image, such as cat/c.png"):
        assert data.create_dataset("folder", **options)["train"].has_mask.tolist() == [True, False, False]
    write_mask(tmp_path / "masks/cat/a.tif", np.ones((24, 32)))
    with pytest.raises(SightlineError, match="would be masks of one image"):
        data.create_dataset("folder", **options)


def test_names_composed_in_two_ways_are_one_name(tmp_path: Path) -> None:
    make(tmp_path / "images", "cat/Bär.png", "dog/b.png")
    write_mask(tmp_path / unicodedata.normalize("NFD", "masks/cat/Bär.png"), np.ones((24, 32)))
    options = {"root": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "val": 0, "test": 0}
    assert data.create_dataset("folder", **options)["train"].has_mask.tolist() == [True, False]
