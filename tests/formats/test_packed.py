"""Images in tar shards and Arrow tables are those of the same files in folders, whatever the order of reading."""

import io
import multiprocessing
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline import data
from sightline.data.files import UnreadableFileError
from sightline.data.loader import create_loader
from sightline.datasets.derived.joined import whole_folder
from sightline.errors import MissingFileError, SightlineError
from sightline.formats import webdataset

COUNT = 12


def drawing(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (20, 24 + number, 3), dtype=np.uint8)


def region(number: int) -> np.ndarray:
    mask = np.zeros((20, 24 + number), dtype=np.uint8)
    mask[4:12, 5 : 10 + number] = 1
    mask[0] = 255
    return mask


def png(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


def files_of(number: int, label: str | None = None) -> dict[str, bytes]:
    """The files of an image: every third one has no mask, and every fourth one has a region to avoid."""
    files = {"png": png(drawing(number)), "cls": (label or str(number % 3)).encode(), "json": b"{}"}
    if number % 3:
        files["mask.png"] = png(region(number))
    if number % 4 == 0:
        files["avoid.png"] = png(region(number) == 1)
    return files


def write_shard(path: Path, numbers: range, mode: str = "w", **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for number in numbers:
            for suffix, content in files_of(number, **options).items():
                info = tarfile.TarInfo(f"deep/{number:04}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def assert_is_drawn(sample: data.Sample, number: int) -> None:
    assert torch.equal(sample.image.as_subclass(torch.Tensor), torch.from_numpy(drawing(number)).permute(2, 0, 1))
    assert sample.label == number % 3
    if number % 3:
        assert torch.equal(sample.mask.as_subclass(torch.Tensor), torch.from_numpy(region(number)))
    else:
        assert sample.mask is None
    if number % 4 == 0:
        assert torch.equal(
            sample.avoid.as_subclass(torch.Tensor), torch.from_numpy(region(number) == 1).to(torch.uint8)
        )
    else:
        assert sample.avoid is None


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shard(tmp_path / "shards" / "000.tar", range(5))
    write_shard(tmp_path / "shards" / "001.tar", range(5, COUNT))
    return tmp_path / "shards"


def test_shards_hold_the_images_in_any_order(shards: Path) -> None:
    images = data.create_dataset("webdataset", root=str(shards), val=0, test=0, ignore=255)["train"]
    assert len(images) == COUNT
    assert images.classes == ["0", "1", "2"]
    for number in (11, 0, 5, 4, 11):
        assert_is_drawn(images[number], number)
        assert images[number].index == number
    assert images.path(7) == "001.tar/deep/0007"
    assert images[7].path == images.path(7)
    assert images.has_mask.tolist() == [number % 3 > 0 for number in range(COUNT)]
    assert images.has_avoid.tolist() == [number % 4 == 0 for number in range(COUNT)]


def test_processes_read_shards_at_the_same_time(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "OPEN", 1)
    images = data.create_dataset("webdataset", root=str(shards), val=0, test=0)["train"]
    images[3]  # the shard is open when the processes are forked
    expected = [batch.images for batch in create_loader(images, size=16, batch_size=2, train=False)]
    found = [batch.images for batch in create_loader(images, size=16, batch_size=2, train=False, num_workers=2)]
    assert torch.equal(torch.cat(found), torch.cat(expected))


@pytest.mark.slow
def test_a_process_that_is_not_forked_reads_shards_too(shards: Path) -> None:
    images = data.create_dataset("webdataset", root=str(shards), val=0, test=0)["train"]
    images[3]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert torch.equal(pool.apply(images.load, (9,)).image, images[9].image)


def test_splits_come_from_names_or_from_the_keys(tmp_path: Path, shards: Path) -> None:
    for name, numbers in {"train-000.tar": range(6), "val/000.tar": range(6, 9), "Testing_1.tar": range(9, 12)}.items():
        write_shard(tmp_path / "named" / name, numbers)
    named = data.create_dataset("webdataset", root=str(tmp_path / "named"))
    assert {name: len(split) for name, split in named.items()} == {"train": 6, "val": 3, "test": 3}
    assert_is_drawn(named["test"][0], 9)

    one = data.create_dataset("webdataset", root=str(shards), val=1, test=1, seed=2)
    assert {name: len(split) for name, split in one.items()} == {"train": 6, "val": 3, "test": 3}
    paths = [split.path(index) for split in one.values() for index in range(len(split))]
    assert len(set(paths)) == COUNT
    again = data.create_dataset("webdataset", root=str(shards), val=1, test=1, seed=2)
    assert [split.fingerprint for split in again.values()] == [split.fingerprint for split in one.values()]
    assert len(whole_folder(one)) == COUNT


def test_shards_lie_on_several_disks(tmp_path: Path) -> None:
    for disk, numbers in enumerate((range(5), range(5, COUNT))):
        write_shard(tmp_path / f"disk{disk}" / "photos" / "000.tar", numbers)
    images = data.create_dataset("webdataset", root=f"{tmp_path}/disk*/photos/*.tar", val=0, test=0)["train"]
    assert images.path(6) == "disk1/photos/000.tar/deep/0006"
    assert images[6].label == 0


def test_the_content_of_shards_is_noticed(shards: Path) -> None:
    before = data.create_dataset("webdataset", root=str(shards), val=0, test=0)["train"]
    content = before.content
    with (shards / "001.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"other")
    after = data.create_dataset("webdataset", root=str(shards), val=0, test=0)["train"]
    assert before.fingerprint == after.fingerprint
    assert after.content != content


def test_labels_can_be_names_and_classes_can_be_given(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", range(3), label="emu")
    write_shard(tmp_path / "b.tar", range(3, 6), label="cat")
    assert (
        data.create_dataset("webdataset", root=str(tmp_path), val=0, test=0)["train"].labels.tolist()
        == [1] * 3 + [0] * 3
    )
    given = data.create_dataset("webdataset", root=str(tmp_path), val=0, test=0, classes=["emu", "dog", "cat"])
    assert given["train"].labels.tolist() == [0] * 3 + [2] * 3
    with pytest.raises(SightlineError, match="unknown class in the files"):
        data.create_dataset("webdataset", root=str(tmp_path), classes=["emu", "dog"])


def test_unreadable_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nothing at"):
        data.create_dataset("webdataset", root=str(tmp_path / "none"))
    with pytest.raises(MissingFileError, match="no file matches"):
        data.create_dataset("webdataset", root=f"{tmp_path}/*.tar")
    write_shard(tmp_path / "packed" / "a.tar.gz", range(3), "w:gz")
    with pytest.raises(SightlineError, match=r"no \.tar file in .*a\.tar\.gz is compressed"):
        data.create_dataset("webdataset", root=str(tmp_path / "packed"))
    os.rename(tmp_path / "packed" / "a.tar.gz", tmp_path / "packed" / "a.tar")
    with pytest.raises(SightlineError, match=r"a\.tar is compressed by gzip; expected a plain tar file"):
        data.create_dataset("webdataset", root=str(tmp_path / "packed"))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.tar").write_text("no shard at all" * 100)
    with pytest.raises(SightlineError, match=r"cannot read the shard .*a\.tar"):
        data.create_dataset("webdataset", root=str(tmp_path / "text"))
    whole = write_shard(tmp_path / "cut" / "a.tar", range(3))
    with pytest.raises(SightlineError, match=r"the image deep/0000 in .* has no label; expected a file deep/0000\.txt"):
        data.create_dataset("webdataset", root=str(tmp_path / "cut"), label="txt")
    images = data.create_dataset("webdataset", root=str(tmp_path / "cut"), val=0, test=0)["train"]
    os.truncate(whole, 1000)
    with pytest.raises(UnreadableFileError, match=re.escape("cannot read the image a.tar/deep/0002")):
        images[2]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    cell = datasets.Image()
    names = datasets.ClassLabel(names=["a", "b", "c"])
    rows = [
        {
            "image": {"bytes": png(drawing(number)), "path": None},
            "label": number % 3,
            "mask": {"bytes": png(region(number)), "path": None} if number % 3 else None,
            "avoid": {"bytes": png(region(number) == 1), "path": None} if number % 4 == 0 else None,
            "text": "not read",
        }
        for number in range(COUNT)
    ]
    features = datasets.Features(
        {"image": cell, "label": names, "mask": cell, "avoid": cell, "text": datasets.Value("string")}
    )
    whole = datasets.Dataset.from_list(rows, features=features)
    whole.save_to_disk(tmp_path / "whole")
    parts = {"train": whole.select(range(8)), "test": whole.select(range(8, COUNT))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "parts")
    return tmp_path


def test_tables_hold_the_images_in_any_order(table: Path) -> None:
    images = data.create_dataset("arrow", root=str(table / "whole"), val=0, test=0, ignore=255)["train"]
    assert images.classes == ["a", "b", "c"]
    for number in (11, 0, 5, 11):
        assert_is_drawn(images[number], number)
    assert images.path(7) == "whole/7"
    assert images.has_mask.tolist() == [number % 3 > 0 for number in range(COUNT)]
    batches = create_loader(images, size=16, batch_size=5, train=True, seed=3, num_workers=2)
    assert sorted(index for batch in batches for index in batch.indices.tolist()) == list(range(COUNT))
    again = data.create_dataset("arrow", root=str(table / "whole"), val=0, test=0, ignore=255)["train"]
    assert (again.fingerprint, again.content) == (images.fingerprint, images.content)


def test_the_splits_of_a_table_are_kept(table: Path) -> None:
    splits = data.create_dataset("arrow", root=str(table / "parts"), val=1, ignore=255)
    assert {name: len(split) for name, split in splits.items()} == {"train": 5, "val": 3, "test": 4}
    assert splits["test"].path(0) == "test/0"
    assert_is_drawn(splits["test"][1], 9)


def test_arrow_folders_without_a_table_raise(table: Path) -> None:
    (table / "empty").mkdir()
    with pytest.raises(SightlineError, match="no folder that save_to_disk"):
        data.create_dataset("arrow", root=str(table / "empty"))
    with pytest.raises(SightlineError, match=r"the columns image, label, mask, avoid, text; 'picture'"):
        data.create_dataset("arrow", root=str(table / "whole"), image="picture")
    with pytest.raises(SightlineError, match=r"the column text .* expected images"):
        data.create_dataset("arrow", root=str(table / "whole"), image="text")
