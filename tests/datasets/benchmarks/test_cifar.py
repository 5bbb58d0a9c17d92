"""CIFAR-10, CIFAR-100 and STL-10: small copies of their layouts, and the real pictures where they are at hand."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from sightline import data
from sightline.errors import SightlineError


def pixels(count: int, side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def write_zip(path: Path, split: str, classes: tuple[str, ...], each: int) -> np.ndarray:
    """Pictures without loss, so that they can be compared."""
    pictures = pixels(len(classes) * each, 32, len(split))
    with zipfile.ZipFile(path, "w") as archive:
        for number, picture in enumerate(pictures):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "png")
            archive.writestr(f"{split}/{classes[number // each]}/{number % each:04}.png", buffer.getvalue())
    return pictures


def test_zip_files_are_read_as_they_are(tmp_path: Path) -> None:
    train = write_zip(tmp_path / "cifar10-train.zip", "train", ("bird", "cat"), 6)
    test = write_zip(tmp_path / "cifar10-test.zip", "test", ("bird", "cat"), 2)
    splits = data.create_dataset("cifar10", root=str(tmp_path), val=2)
    assert splits.classes == ["bird", "cat"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 8, "val": 4, "test": 4}
    seen = set()
    for name in ("train", "val"):
        for i in range(len(splits[name])):
            sample = splits[name][i]
            _, _, kind, file = sample.path.split("/")
            assert splits.classes[sample.label] == kind
            place = 6 * sample.label + int(Path(file).stem)
            assert torch.equal(sample.image.as_subclass(torch.Tensor), torch.from_numpy(train[place]).movedim(-1, 0))
            assert sample.index == i
            seen.add(place)
    assert seen == set(range(12))
    for i in range(4):
        assert torch.equal(splits["test"][i].image.as_subclass(torch.Tensor), torch.from_numpy(test[i]).movedim(-1, 0))
    copied = pickle.loads(pickle.dumps(splits["train"]))  # as worker processes get it
    assert torch.equal(copied[3].image, splits["train"][3].image)


def test_training_sets_nest_and_have_their_own_fingerprints(tmp_path: Path) -> None:
    write_zip(tmp_path / "cifar100-train.zip", "train", ("bird", "cat"), 6)
    write_zip(tmp_path / "cifar100-test.zip", "test", ("bird", "cat"), 2)

    def made(**options: int) -> data.ImageDataset:
        return data.create_dataset("cifar100", root=str(tmp_path), val=1, **options)["train"]

    small, large = made(per_class=2), made(per_class=4)
    paths = [{split.path(i) for i in range(len(split))} for split in (small, large)]
    assert paths[0] < paths[1]
    assert small.labels.bincount().tolist() == [2, 2]
    assert len({small.fingerprint, large.fingerprint, made(per_class=2, seed=1).fingerprint}) == 3
    assert made(per_class=2).fingerprint == small.fingerprint


@pytest.mark.parametrize(("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar_reads_the_files_of_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[datasets.CIFAR10]
) -> None:
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(kind, "_load_meta", lambda self: setattr(self, "classes", ["a", "b"]))
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    whole = []
    for number, (file, _) in enumerate([*kind.train_list, *kind.test_list]):
        flat = pixels(4, 32, number).transpose(0, 3, 1, 2).reshape(4, -1)
        key = "labels" if name == "cifar10" else "fine_labels"
        (folder / file).write_bytes(pickle.dumps({"data": flat, key: [0, 1, 0, 1]}))
        whole.append(torch.from_numpy(flat).view(4, 3, 32, 32))
    splits = data.create_dataset(name, root=str(tmp_path), val=0)
    assert splits.classes == ["a", "b"]
    assert len(splits["train"]) == 4 * len(kind.train_list)
    assert len(splits["test"]) == 4
    assert torch.equal(splits["train"][2].image.as_subclass(torch.Tensor), whole[0][2])
    assert torch.equal(splits["test"][3].image.as_subclass(torch.Tensor), whole[-1][3])
    assert splits["test"].labels.tolist() == [0, 1, 0, 1]


def test_stl10_is_read_with_its_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("plane\nbird\n")
    columns = {}
    for part in ("train", "test"):
        columns[part] = np.random.default_rng(len(part)).integers(0, 256, (4, 3, 96, 96), dtype=np.uint8)
        columns[part].tofile(folder / f"{part}_X.bin")  # pixels column by column
        np.array([1, 2, 1, 2], dtype=np.uint8).tofile(folder / f"{part}_y.bin")
    splits = data.create_dataset("stl10", root=str(tmp_path), val=0)
    assert splits.classes == ["plane", "bird"]
    assert splits["train"].labels.tolist() == [0, 1, 0, 1]
    for part in ("train", "test"):
        upright = torch.from_numpy(columns[part][2]).transpose(1, 2)
        assert torch.equal(splits[part][2].image.as_subclass(torch.Tensor), upright)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_a_folder_without_them_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SightlineError, match=rf"root.*{name}.*download=True"):
        data.create_dataset(name, root=str(tmp_path))
    with pytest.raises(SightlineError, match="root"):
        data.create_dataset(name, root=str(tmp_path / "nowhere"))


def test_zip_files_that_are_none(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"cifar10-{split}.zip").write_bytes(b"no zip")
    with pytest.raises(SightlineError, match=r"cifar10-train\.zip"):
        data.create_dataset("cifar10", root=str(tmp_path))
    for split in ("train", "test"):
        with zipfile.ZipFile(tmp_path / f"cifar10-{split}.zip", "w") as archive:
            archive.writestr("picture.jpg", b"")
    with pytest.raises(SightlineError, match="SPLIT/CLASS"):
        data.create_dataset("cifar10", root=str(tmp_path))


def test_cifar10_of_the_data_folder_has_its_splits_and_classes(data_folder: Path) -> None:
    if not (data_folder / "cifar10" / "cifar10-train.zip").is_file():
        pytest.skip(f"CIFAR-10 is not at hand in {data_folder}")
    splits = data.create_dataset("cifar10", root=str(data_folder / "cifar10"), val=100, per_class=200)
    assert {name: len(split) for name, split in splits.items()} == {"train": 2000, "val": 1000, "test": 10000}
    assert splits.classes == (
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    )
    assert splits["test"].labels.bincount().tolist() == [1000] * 10
    sample = splits["train"][0]
    assert sample.image.shape == (3, 32, 32)
    assert sample.image.float().std() > 5
