"""Regions to avoid: they go wherever their image goes, and one that is missing differs from an empty one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from layouts import write_csv, write_image, write_mask
from sightline import Batch, SightlineError, data
from sightline.data.dataset import InMemory
from sightline.data.loader import create_loader
from sightline.datasets.derived.relabeled import Relabeled
from sightline.datasets.derived.subset import Subset
from sightline.formats.coco_file import CocoFile
from sightline.verification.verify import verify_dataset

IMAGES, LABELS = torch.rand(3, 3, 6, 8), torch.tensor([0, 1, 1])


def stamped(dataset: InMemory, known: tuple[bool, ...]) -> InMemory:
    """The data set with its objects as regions to avoid; None where they are not known."""
    samples = [replace(dataset[i], avoid=dataset[i].mask if some else None) for i, some in enumerate(known)]
    return InMemory(samples, dataset.classes, "stamped")


def test_a_batch_has_regions_to_avoid() -> None:
    avoid = torch.randint(2, (3, 6, 8), dtype=torch.uint8)
    batch = Batch(IMAGES, LABELS, avoid=avoid)
    assert batch.has_avoid.tolist() == [True] * 3
    moved = Batch(IMAGES, LABELS, avoid=avoid, has_avoid=torch.tensor([True, False, True])).to("cpu")
    assert torch.equal(moved.avoid, avoid)
    assert moved.has_avoid.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"avoid": torch.zeros(3, 8, 6, dtype=torch.uint8)}, r"avoid has shape \(3, 8, 6\); expected \(3, 6, 8\)"),
        ({"avoid": torch.zeros(3, 1, 6, 8, dtype=torch.uint8)}, r"avoid has shape \(3, 1, 6, 8\)"),
        ({"avoid": torch.full((3, 6, 8), 7, dtype=torch.uint8)}, "avoid hold the value 7"),
        ({"avoid": torch.full((3, 6, 8), 1.5)}, r"avoid range over \[1.5, 1.5\]"),
        ({"avoid": torch.zeros(3, 6, 8, dtype=torch.int64)}, "avoid have dtype torch.int64"),
        ({"has_avoid": torch.tensor([True] * 3)}, "has_avoid was given without avoid"),
        ({"avoid": torch.zeros(3, 6, 8), "has_avoid": torch.tensor([True])}, "has_avoid has shape"),
    ],
)
def test_a_wrong_region_is_rejected(given: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        Batch(IMAGES, LABELS, **given)


@pytest.mark.parametrize("train", [True, False])
def test_regions_move_with_their_images_and_an_unknown_one_is_ignored(
    make_objects: Callable[..., InMemory], train: bool
) -> None:
    dataset = stamped(make_objects(6), (True, False, True, True, True, True))
    dataset.keep_in_memory(20)
    for epoch in range(3):
        loader = create_loader(dataset, size=16, batch_size=6, train=train, augment={"crop": 0.3} if train else None)
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        known = batch.indices != 1
        assert torch.equal(batch.has_avoid, known)
        assert torch.equal(batch.avoid[known], batch.masks[known])  # of equal regions, moved alike
        assert (batch.avoid[~known] == 255).all()


def test_data_sets_made_of_others_keep_the_regions(make_objects: Callable[..., InMemory]) -> None:
    dataset = stamped(make_objects(4), (True, False, True, True))
    assert Relabeled(dataset, ["b", "x", "a"]).has_avoid.tolist() == [True, False, True, True]
    some = Subset(dataset, [1, 2, 3], {3: 0})
    assert some.has_avoid.tolist() == [False, True, False]
    assert [some[i].avoid is not None for i in range(3)] == [False, True, False]
    assert dataset.fingerprint != stamped(make_objects(4), (True,) * 4).fingerprint


def test_folder_avoid_reads_regions_of_the_images_that_have_one(tmp_path: Path) -> None:
    values = np.zeros((24, 32))
    values[:4, :5], values[4:8, :5] = 255, 7
    for name in ("cat", "dog"):
        for number in range(2):
            write_image(tmp_path / f"images/{name}/{number}.png")
    write_mask(tmp_path / "images/avoid/cat/0.png", values)
    write_mask(tmp_path / "images/avoid/dog/1.png", 0 * values)
    write_mask(tmp_path / "masks/dog/1.png", values)
    options = {"root": str(tmp_path / "images"), "val": 0, "test": 0, "ignore": 255}
    train = data.create_dataset(
        "folder", **options, masks=str(tmp_path / "masks"), avoid=str(tmp_path / "images/avoid")
    )["train"]
    assert train.classes == ["cat", "dog"]
    assert train.has_avoid.tolist() == [True, False, False, True]
    assert train.has_mask.tolist() == [False, False, False, True]
    assert torch.equal(train[0].avoid, torch.from_numpy(values > 0).to(torch.uint8))  # `ignore` is of masks alone
    assert train[1].avoid is None
    assert not train[3].avoid.any()
    assert isinstance(train[3].avoid, tv_tensors.Mask)
    report = verify_dataset("folder", {**options, "avoid": str(tmp_path / "images/avoid")})
    assert not report.problems
    assert not report.unlisted
    other = write_mask(tmp_path / "other/cat/9.png", values).parents[1]
    with (
        pytest.warns(UserWarning, match="belong to no image"),
        pytest.raises(SightlineError, match="avoid: nothing in"),
    ):
        data.create_dataset("folder", **options, avoid=str(other))


def test_a_region_of_another_size_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_image(tmp_path / f"images/{name}/0.png")
    write_mask(tmp_path / "avoid/cat/0.png", np.ones((32, 24)))
    splits = data.create_dataset("folder", root=str(tmp_path / "images"), avoid=str(tmp_path / "avoid"), val=0, test=0)
    with pytest.raises(SightlineError, match=r"avoid/cat/0.png is 24 x 32 .* the same orientation"):
        splits["train"][0]


def test_csv_avoid_column_is_read(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.png", "label": i % 2, "avoid": "a.png" if i == 1 else ""} for i in range(4)]
    for row in rows:
        write_image(tmp_path / row["path"])
    write_mask(tmp_path / "a.png", np.eye(24, 32))
    train = data.create_dataset("csv", path=str(write_csv(tmp_path / "list.csv", rows)), val=0, test=0)["train"]
    assert train.has_avoid.tolist() == [False, True, False, False]
    assert torch.equal(train[1].avoid, torch.eye(24, 32, dtype=torch.uint8))


def test_coco_avoid_categories_become_regions(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    box = [2, 3, 10, 8]
    corners = [2, 3, 12, 3, 12, 11, 2, 11]

    def annotation(number: int, image: int, category: int, **changes: object) -> dict[str, object]:
        whole = {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": [corners]}
        return {**whole, "area": 80, "iscrowd": 0, **changes}

    annotations = [annotation(i, i, 1 + i % 2) for i in range(1, 7)]
    annotations += [annotation(10, 1, 3, bbox=[20, 0, 4, 4], segmentation=[[20, 0, 24, 0, 24, 4, 20, 4]])]
    annotations += [annotation(11, 2, 3, segmentation=[])]
    for part, images in (("train", range(1, 5)), ("val", range(5, 7))):
        content = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 24} for i in images],
            "annotations": [a for a in annotations if a["image_id"] in images],
            "categories": [{"id": i, "name": name} for i, name in enumerate(("cat", "dog", "stamp"), 1)],
        }
        for i in images:
            write_image(tmp_path / f"{part}2017/{i}.png")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/instances_{part}2017.json").write_text(json.dumps(content))
    assert CocoFile.read(tmp_path / "annotations/instances_train2017.json").annotated == {"cat", "dog", "stamp"}
    splits = data.create_dataset("coco", root=str(tmp_path), avoid=["stamp"], val=0)
    assert splits.classes == ["cat", "dog"]
    train = splits["train"]
    assert train.has_avoid.tolist() == [True, False, True, True]  # the second stamp has no segmentation
    expected = torch.zeros(24, 32, dtype=torch.uint8)
    expected[0:4, 20:24] = 1
    assert torch.equal(train[0].avoid, expected)
    assert (train[0].mask * expected).sum() == 0
    assert not train[2].avoid.any()
    assert splits["test"].has_avoid.all()
    assert train[0].boxes.tolist() == [[2, 3, 12, 11]]
    with pytest.raises(SightlineError, match="stmp"):
        data.create_dataset("coco", root=str(tmp_path), avoid=["stmp"])
    with pytest.raises(SightlineError, match="avoid: 'cat' is among the classes"):
        data.create_dataset("coco", root=str(tmp_path), avoid=["cat"], classes=["cat", "dog"])
