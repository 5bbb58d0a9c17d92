"""`as_dataset`: every form of labelled data gives the same images and labels."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.transforms import v2

import sightline as sl
from sightline.data import ImageDataset
from sightline.given import Normalization, as_dataset, as_images, readable_part

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
NAMES = ["cat", "dog"]
to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
normalized = v2.Compose([to_float, v2.Normalize(MEAN, STD)])


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (8, 10, 3), dtype=np.uint8) for _ in range(6)]


@pytest.fixture(scope="module")
def folder(arrays: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cats, then three dogs."""
    root = tmp_path_factory.mktemp("photos")
    for place, array in enumerate(arrays):
        file = root / NAMES[place // 3] / f"{place}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(array).save(file)
    return root


class Pairs(Dataset[Any]):
    """A dataset of a user."""

    def __init__(self, items: list[Any], transform: Callable[[Any], Any] = lambda item: item) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.transform(self.items[place])


class Stream(IterableDataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"))


def encoded(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def forms(arrays: list[np.ndarray], folder: Path) -> dict[str, Any]:
    """The same six images in every form."""
    labels = [0, 0, 0, 1, 1, 1]
    words = [NAMES[label] for label in labels]
    pairs = list(zip(arrays, labels))
    pictures = [(Image.fromarray(array), label) for array, label in pairs]
    channels_first = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays])
    paths = files(folder)
    floats = [(to_float(picture), label) for picture, label in pictures]
    shuffled = [pictures[place] for place in (3, 0, 4, 1, 5, 2)]
    batch = sl.Batch(channels_first / 255, torch.tensor(labels))
    return {
        "a folder": folder,
        "a folder as text": str(folder),
        "ImageFolder": torchvision.datasets.ImageFolder(str(folder)),
        "ImageFolder whose transform normalizes": torchvision.datasets.ImageFolder(str(folder), normalized),
        "ImageFolder in a loader": DataLoader(torchvision.datasets.ImageFolder(str(folder), normalized), 2, shuffle=True),
        "some of an ImageFolder": Subset(torchvision.datasets.ImageFolder(str(folder), normalized), range(6)),
        "pairs of arrays": pairs,
        "pairs of images": pictures,
        "pairs of paths": list(zip(paths, labels)),
        "pairs of texts and names": list(zip(map(str, paths), words)),
        "mappings": [{"image": picture, "label": torch.tensor(label)} for picture, label in pictures],
        "mappings of webdataset": [{"__key__": str(i), "jpg": p, "cls": y} for i, (p, y) in enumerate(pictures)],
        "mappings with another key": [{"Photo": p, "Class": np.int64(y)} for p, y in pictures],
        "undecoded": [{"image": {"bytes": encoded(a), "path": None}, "labels": y} for a, y in pairs],
        "a dataset of float tensors": Pairs(pictures, lambda item: (to_float(item[0]), item[1])),
        "a dataset of normalized tensors": Pairs(pictures, lambda item: (normalized(item[0]), item[1])),
        "normalized batches": DataLoader(Pairs(pictures, lambda item: (normalized(item[0]), item[1])), 4, sampler=range(6)),
        "a dataset of three values": Pairs(pictures, lambda item: (*item, {"more": 1})),
        "joined": ConcatDataset([Pairs(pictures[:2]), Pairs(pictures[2:])]),
        "chosen": Subset(Pairs(shuffled), [1, 3, 5, 0, 2, 4]),
        "tensors": TensorDataset(channels_first, torch.tensor(labels)),
        "images and labels": (channels_first.numpy(), np.array(labels)),
        "images last and labels": (np.stack(arrays), torch.tensor(labels)),
        "deep": (np.stack(arrays).astype(np.uint16) * 257, np.array(labels)),
        "a loader": DataLoader(Pairs(floats), batch_size=4),
        "a loader of mappings": DataLoader(Pairs([{"img": i, "target": y} for i, y in floats]), batch_size=4, shuffle=False),
        "a loader that collates": DataLoader(Pairs(pictures), 4, collate_fn=lambda items: tuple(zip(*items))),
        "a stream": Stream(pictures),
        "a loader of a stream": DataLoader(Stream(floats), batch_size=4),
        "a generator": (pair for pair in pictures),
        "batches": iter([batch]),
        "a table of pandas": pd.DataFrame({"Path": map(str, paths), "label": words, "note": 1.5}),
        "a table with numbers": pd.DataFrame({"file_name": map(str, paths), "class": labels}),
    }  # fmt: skip


def check(data: ImageDataset, arrays: list[np.ndarray], tolerance: int = 0) -> None:
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for place, array in enumerate(arrays):
        sample = data[place]
        assert sample.image.dtype == torch.uint8
        difference = sample.image.as_subclass(torch.Tensor).int() - torch.from_numpy(array).permute(2, 0, 1).int()
        assert difference.abs().max() <= tolerance
        assert (sample.index, sample.label) == (place, place // 3)


def test_every_form_gives_the_same_images(
    arrays: list[np.ndarray], folder: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for name, data in forms(arrays, folder).items():
        try:
            found = as_dataset(data, classes=NAMES, normalization=Normalization(MEAN, STD))
            check(found, arrays)
        except Exception as error:
            raise AssertionError(name) from error
        assert found.classes == NAMES, name
        assert len({found.path(place) for place in range(6)}) == 6, name


def test_assumptions_about_the_data_warn(arrays: list[np.ndarray]) -> None:
    pictures = [(normalized(Image.fromarray(array)), place // 3) for place, array in enumerate(arrays)]
    with pytest.warns(UserWarning, match="are normalized; the mean and std of the model were taken back"):
        as_dataset(Pairs(pictures), normalization=Normalization(MEAN, STD))
    moving = Pairs(pictures, lambda item: (torch.rand(3, 8, 8), item[1]))
    with pytest.warns(UserWarning, match="shows another image each time"):
        as_dataset(moving)


def test_labels_without_names_count_as_given(arrays: list[np.ndarray]) -> None:
    labels = [2, 0, 2, 0, 2, 0]
    assert as_dataset(list(zip(arrays, labels))).classes == ["0", "1", "2"]
    found = as_dataset(list(zip(arrays, labels)), classes=["a", "b", "c", "d"])
    assert (found.classes, found.labels.tolist()) == (["a", "b", "c", "d"], labels)
    named = as_dataset(list(zip(arrays, ["10", "9", "10", "9", "10", "9"])), classes=["a", "b"])
    assert (named.classes, named.labels.tolist()) == (["9", "10"], [1, 0, 1, 0, 1, 0])


def test_listed_targets_count_only_if_items_agree(arrays: list[np.ndarray]) -> None:
    data = Pairs(list(zip(arrays, [0, 0, 0, 1, 1, 1])))
    data.targets = [1, 1, 1, 0, 0, 0]  # type: ignore[attr-defined]  # before the user changed them
    assert as_dataset(data).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_masks_and_regions_to_avoid_are_kept(arrays: list[np.ndarray], folder: Path, tmp_path: Path) -> None:
    drawn = np.zeros((8, 10), np.uint8)
    drawn[2:5, 3:6] = 200
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    paths = files(folder)
    empty: Any
    for mask, empty, images in (
        (drawn, None, arrays), (Image.fromarray(drawn), None, arrays), (str(tmp_path / "mask.png"), float("nan"), paths),
        (torch.from_numpy(drawn) > 0, None, arrays),
    ):  # fmt: skip
        items = [{"image": image, "label": i % 2, "mask": mask if i else empty, "avoid": empty if i else mask}
                 for i, image in enumerate(images)]  # fmt: skip
        found = as_dataset(items)
        assert found.has_mask.tolist() == [False, *[True] * 5]
        assert found.has_avoid.tolist() == [True, *[False] * 5]
        assert found[1].mask is not None and found[0].avoid is not None  # noqa: PT018
        expected = torch.from_numpy(drawn > 0).to(torch.uint8)
        assert torch.equal(found[1].mask.as_subclass(torch.Tensor), expected)
        assert torch.equal(found[0].avoid.as_subclass(torch.Tensor), expected)


def test_values_of_every_type_become_bytes() -> None:
    gray = np.array([[0, 128], [255, 64]], np.uint8)
    rgb = np.repeat(gray[..., None], 3, 2)
    alpha = np.concatenate([rgb, np.array([[255, 255], [255, 0]], np.uint8)[..., None]], 2)
    white = np.where(alpha[..., 3:] == 0, 255, rgb)
    for value, expected in (
        (gray, rgb), (rgb, rgb), (np.moveaxis(rgb, -1, 0), rgb), (torch.from_numpy(gray)[None], rgb),
        (gray.astype(np.int64), rgb), (gray.astype(np.float64) / 255, rgb), (torch.from_numpy(rgb / 255).bfloat16(), rgb),
        (gray > 0, (rgb > 0) * 255),
        (alpha, white), (Image.fromarray(alpha, "RGBA"), white), (Image.fromarray(gray), rgb),
        (torch.from_numpy(rgb).float() / 255 + 1e-3, rgb),
    ):  # fmt: skip
        ((name, image),) = as_images([value])
        assert name == "image 0"
        assert (image.permute(1, 2, 0).numpy().astype(int) - expected).__abs__().max() <= 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "data is a int; expected a folder"),
        ({"train": [], "test": []}, "keys train, test; expected one of its values"),
        ([], "data is empty"),
        ([np.zeros((4, 4, 3), np.uint8)], "item 0 of the data has no label"),
        ([(np.zeros((4, 4, 3), np.uint8), -1)], "the label of item 0 is -1"),
        ([(np.zeros((4, 4, 3), np.uint8), 0.5)], "the label of item 0 is 0.5; expected a class index"),
        ([(np.zeros((4, 4, 3), np.uint8), [1, 2])], "the label of item 0 is [1, 2]; expected a class index"),
        ([(np.zeros((4, 4, 3), np.uint8), 0), (np.zeros((4, 4, 3), np.uint8), "a")], "numbers and names such as 'a'"),
        ([(np.full((4, 4, 3), 2.5), 0), (np.zeros((4, 4, 3)), 1)], "Leave the normalization out"),
        ([(np.full((4, 4, 3), np.nan), 0), (np.zeros((4, 4, 3)), 1)], "range over [nan, nan]"),
        ([(np.full((4, 4, 3), 300), 0), (np.zeros((4, 4, 3), int), 1)], "expected whole numbers in 0 .. 255"),
        ([(np.zeros((6, 4, 5), np.uint8), 0), (np.zeros((6, 4, 5), np.uint8), 1)], "has shape (6, 4, 5)"),
        ([({"a": 1}, 0), ({"a": 1}, 1)], "image 0 is a dict; expected a path"),
        ([{"picture": "a", "label": 1}], "has the keys picture, label; none of them is known to be the image"),
        (pd.DataFrame({"where": ["a"], "label": ["b"]}), "has the keys where, label"),
        ((np.zeros((3, 4, 4, 3)), np.zeros(2)), "3 images and 2 labels"),
        ("nowhere", "data: nothing at nowhere"),
    ],
)  # fmt: skip
def test_data_of_an_unknown_form_raises(data: Any, message: str) -> None:
    with pytest.raises(sl.SightlineError) as error:
        as_dataset(data)
    assert message in str(error.value)


def test_names_of_classes_bound_the_labels(arrays: list[np.ndarray]) -> None:
    with pytest.raises(sl.SightlineError, match=r"the label of item 1 is 2; expected a class index in 0 .. 1"):
        as_dataset([(arrays[0], 0), (arrays[1], 2)], classes=NAMES)


@pytest.mark.parametrize("form", ["folder", "paths", "table", "dataset"])
def test_corrupt_files_are_named_left_out_and_counted(arrays: list[np.ndarray], tmp_path: Path, form: str) -> None:
    for place, array in enumerate(arrays):
        file = tmp_path / NAMES[place % 2] / f"{place}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(array).save(file)
    paths = sorted(tmp_path.glob("*/*.png"))
    bad = paths[1]
    bad.write_bytes(bad.read_bytes()[:60])
    labels = [0, 0, 0, 1, 1, 1]
    if form != "folder":
        paths.append(tmp_path / "none.png")
        labels.append(1)
    data: Any = {
        "folder": tmp_path, "paths": list(zip(paths, labels)), "table": pd.DataFrame({"path": paths, "label": labels}),
        "dataset": Pairs(list(zip(paths, labels)), lambda item: (Image.open(item[0]).convert("RGB"), item[1])),
    }[form]  # fmt: skip
    name = "item 1" if form == "dataset" else str(bad)
    with pytest.warns(UserWarning, match=f"images cannot be read and are left out: .*{name}"):
        found = readable_part(as_dataset(data))
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert [found[place].label for place in range(5)] == [0, 0, 1, 1, 1]
    if form != "dataset":
        assert found.skipped == [str(bad), str(tmp_path / "none.png")][: 1 if form == "folder" else 2]


def test_data_without_a_readable_image_raises(tmp_path: Path) -> None:
    with pytest.raises(sl.SightlineError, match=r"none of the 2 images can be read: cannot read the image .*a\.png"):
        readable_part(as_dataset([(tmp_path / "a.png", 0), (tmp_path / "b.png", 1)]))


def test_an_error_of_a_worker_is_its_message_alone(folder: Path, tmp_path: Path) -> None:
    copies = []
    for place, file in enumerate(files(folder)):
        copies.append((tmp_path / f"{place}.png", place % 2))
        copies[-1][0].write_bytes(file.read_bytes()[: None if place else 60])
    loader = sl.data.loader.create_loader(as_dataset(copies), size=8, batch_size=6, train=False, num_workers=1)
    with pytest.raises(
        sl.SightlineError, match=r"^cannot read the image .*0\.png: .*skip_corrupt=true of the data leaves"
    ) as error:
        next(iter(loader))
    assert "Traceback" not in str(error.value)


def test_every_form_of_a_hugging_face_dataset_is_read(arrays: list[np.ndarray]) -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Features"):
        pytest.skip("the package datasets is not installed; these are the tests' own")
    features = datasets.Features({"photo": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    pictures = [Image.fromarray(array) for array in arrays]
    data = datasets.Dataset.from_dict({"photo": pictures, "label": [0, 0, 0, 1, 1, 1]}, features=features)
    undecoded = data.cast_column("photo", datasets.Image(decode=False))
    for form in (data, data.with_format("torch"), undecoded, data.to_iterable_dataset()):
        found = as_dataset(form)
        check(found, arrays)
        assert found.classes == NAMES
    with pytest.raises(sl.SightlineError, match="keys train; expected one of its values"):
        as_dataset(datasets.DatasetDict({"train": data}))
