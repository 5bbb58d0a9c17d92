"""A file's split follows from its own name: shares hold on average, and what is added moves nothing else."""

import random
import unicodedata
from functools import partial
from pathlib import Path

import pytest

from layouts import write_csv, write_image
from sightline import data
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.formats.splitting import divide_by_name, official_splits, split_name

SIZES = {"val": 0.2, "test": 0.2}


def divided(names: list[str], sizes: dict[str, float] = SIZES, seed: int = 0, **options: int) -> dict[str, str]:
    """The part of each name, all of one class."""
    records = [Record(Path(name), 0) for name in names]
    found = divide_by_name(records, names, sizes, seed, **options)
    return {str(record.path): part for part, some in found.items() for record in some}


def named(count: int, tag: str = "") -> list[str]:
    return [f"{tag}{i:05}.jpg" for i in range(count)]


def parts_of(splits: Splits) -> dict[str, str]:
    return {split[i].path: name for name, split in splits.items() for i in range(len(split))}


def test_shares_are_met_on_average() -> None:
    parts = list(divided(named(20_000)).values())
    assert parts.count("test") / 20_000 == pytest.approx(0.2, abs=4 * (0.16 / 20_000) ** 0.5)
    assert parts.count("val") / 20_000 == pytest.approx(0.2, abs=4 * (0.16 / 20_000) ** 0.5)
    assert divided(named(50), seed=1) != divided(named(50))


@pytest.mark.parametrize("seed", range(5))
def test_files_that_are_added_move_no_other(seed: int) -> None:
    before = divided(named(100), seed=seed)
    after = divided(named(100) + named(57, "new"), seed=seed)
    assert {name: after[name] for name in before} == before
    shuffled = named(100)
    random.Random(seed).shuffle(shuffled)
    assert divided(shuffled, seed=seed) == before


@pytest.mark.parametrize("sizes", [SIZES, {"val": 1, "test": 2}, {"val": 0.1, "test": 3}, {"val": 2, "test": 0.25}])
@pytest.mark.parametrize("count", [8, 12])
def test_training_images_are_never_held_out_after_files_are_added(sizes: dict[str, float], count: int) -> None:
    for seed in range(60):
        before = divided(named(count), sizes, seed)
        after = divided(named(count) + named(1 + seed % 9, "new"), sizes, seed)
        assert all(after[name] == "train" for name, part in before.items() if part == "train")


@pytest.mark.parametrize("count", [8, 11])
def test_small_classes_have_an_image_in_every_part(count: int) -> None:
    parts = [list(divided(named(count), seed=seed).values()) for seed in range(300)]
    assert all({"train", "val", "test"} == set(some) for some in parts)
    held_out = sum(some.count("test") for some in parts) / (300 * count)
    assert 0.2 <= held_out < 0.2 + 0.8**count / count + 0.02  # the share, and the one that an empty part takes


def test_one_image_is_trained_on_and_counts_are_exact() -> None:
    assert divided(["a.jpg"]) == {"a.jpg": "train"}
    parts = list(divided(named(10), {"val": 3, "test": 2}).values())
    assert [parts.count(part) for part in ("train", "val", "test")] == [5, 3, 2]
    with pytest.raises(SightlineError, match=r"class 0 has 10 images, and \{'val': 6, 'test': 4\} leave 0 of them"):
        divided(named(10), {"val": 6, "test": 4})
    with pytest.raises(SightlineError, match="shares that sum to less than 1"):
        divided(named(10), {"val": 0.5, "test": 0.5})
    with pytest.raises(SightlineError, match="test is nan; expected a share"):
        divided(named(10), {"val": 0.5, "test": float("nan")})


def test_test_does_not_depend_on_the_size_of_val_and_names_keep_together() -> None:
    wide, narrow = divided(named(60), SIZES), divided(named(60), {"val": 0.05, "test": 0.2})
    assert [n for n in wide if wide[n] == "test"] == [n for n in narrow if narrow[n] == "test"]
    records = [Record(Path(f"{i}.jpg"), 0) for i in range(40)]
    parts = divide_by_name(records, [f"{i // 4}" for i in range(40)], SIZES, seed=0)
    groups = [{int(record.path.stem) // 4 for record in some} for some in parts.values()]
    assert sum(map(len, groups)) == 10


def test_fewer_training_images_are_contained_in_more() -> None:
    few, more = divided(named(40), per_class=5), divided(named(40), per_class=9)
    assert (len([n for n in few if few[n] == "train"]), set(few) <= set(more)) == (5, True)
    with pytest.raises(SightlineError, match="expected at least 41"):
        divided(named(40), per_class=41)


def test_composed_and_decomposed_names_are_one_name() -> None:
    names = [f"Bär {i}.jpg" for i in range(40)]
    apart = [unicodedata.normalize("NFD", name) for name in names]
    assert list(divided(names).values()) == list(divided(apart).values())
    assert len(divided(["\udcff.jpg", "b.jpg", "c.jpg"])) == 3  # a file name that is not UTF-8


def test_a_folder_that_grows_keeps_its_splits(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(20):
            write_image(tmp_path / "images" / name / f"{i}.jpg")
    options = {"root": str(tmp_path / "images")}
    before = parts_of(data.create_dataset("folder", **options))
    for name, i in (("cat", 100), ("cat", 101), ("dog", 0.5), ("zebra", 0), ("zebra", 1), ("ant", 0)):
        write_image(tmp_path / "images" / name / "deep" / f"{i}.jpg")
    after = parts_of(data.create_dataset("folder", **options))
    assert {path: after[path] for path in before} == before

    (tmp_path / "images/cat").rename(tmp_path / "images/lion")  # the name within the class decides
    renamed = parts_of(data.create_dataset("folder", **options))
    assert {path.replace("/lion/", "/cat/"): part for path, part in renamed.items()} == after


def test_val_that_is_taken_from_train_and_rows_of_a_table_likewise(tmp_path: Path) -> None:
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
        for i in range(20):
            write_image(tmp_path / "images" / split / name / f"{i}.jpg")
    before = parts_of(data.create_dataset("folder", root=str(tmp_path / "images")))
    write_image(tmp_path / "images/train/cat/new.jpg")
    after = parts_of(data.create_dataset("folder", root=str(tmp_path / "images")))
    assert {path: after[path] for path in before} == before

    rows: list[dict[str, object]] = [
        {"path": f"images/train/{name}/{i}.jpg", "label": name} for i in range(20) for name in ("cat", "dog")
    ]
    write_csv(tmp_path / "few.csv", rows[:38])
    write_csv(tmp_path / "all.csv", rows[::-1])
    few = parts_of(data.create_dataset("csv", path=str(tmp_path / "few.csv")))
    more = parts_of(data.create_dataset("csv", path=str(tmp_path / "all.csv")))
    assert {path: more[path] for path in few} == few


def test_a_table_calls_its_splits_by_any_usual_name(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for part in ("Training", "valid", "TEST", "hard"):
        for name in ("cat", "dog"):
            rows.append({"path": f"{part}/{name}.png", "label": name, "split": part})
            write_image(tmp_path / f"{part}/{name}.png")
    splits = data.create_dataset("csv", path=str(write_csv(tmp_path / "list.csv", rows)))
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 2, "test": 2, "hard": 2}


@pytest.mark.parametrize("name", ["training", "Train_Set", "train-images", " train "])
def test_usual_names_of_splits(name: str) -> None:
    assert split_name(name) == "train"
    assert split_name("validation") == split_name("valid") == split_name("Val-data") == split_name("dev") == "val"
    assert (
        split_name("trainer")
        is split_name("station")
        is split_name("development")
        is split_name("test_shifted")
        is split_name("")
        is None
    )


def test_val_of_data_that_may_grow_follows_from_names(tmp_path: Path) -> None:
    def val_of(count: int) -> set[str]:
        records = [Record(tmp_path / f"{i}.png", i % 2) for i in range(60 - count, 60)]
        make = partial(FileDataset, classes=["a", "b"], root=tmp_path)
        splits = official_splits(records, [Record(tmp_path / "test.png", 0)], make, 0.3, 0, name=lambda path: path.name)
        return {path for path, part in parts_of(splits).items() if part == "val"}

    for name in [*range(60), "test"]:
        write_image(tmp_path / f"{name}.png")
    assert val_of(40) == {path for path in val_of(60) if int(Path(path).stem) >= 20}
