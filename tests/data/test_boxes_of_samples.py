import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from layouts import write_csv, write_image
from sightline import data
from sightline.data import Batch
from sightline.data.dataset import InMemory
from sightline.data.file_dataset import as_boxes
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.regions.batch_regions import object_region


def with_boxes(objects: InMemory, boxes: dict[int, list[list[float]]]) -> InMemory:
    """The objects, 32 x 24 pixels, with boxes at some places."""
    samples = [
        replace(objects[i], boxes=as_boxes(boxes[i], (24, 32)) if i in boxes else None) for i in range(len(objects))
    ]
    return InMemory(samples, objects.classes, "boxed")


def batch_of(dataset: data.ImageDataset, **options: object) -> Batch:
    (batch,) = create_loader(dataset, **{"size": 24, "batch_size": 8, "train": False, **options})
    return batch


def test_numbers_of_boxes_differ_and_what_the_crop_cuts_away_is_dropped(make_objects: Callable[..., InMemory]) -> None:
    boxes = {0: [[4, 6, 20, 14]], 1: [[6, 0, 10, 24], [0, 0, 3, 24], [-9, 2, 40, 5]], 3: [[29, 3, 32, 9]]}
    batch = batch_of(with_boxes(make_objects(4), boxes))  # evaluation keeps the columns 4 to 28
    assert batch.has_box.tolist() == [[True, False], [True, True], [False, False], [False, False]]
    assert batch.boxes[0, 0].tolist() == [0, 6, 16, 14]
    assert batch.boxes[1].tolist() == [[2, 0, 6, 24], [0, 2, 24, 5]]
    assert type(batch.boxes) is Tensor
    assert object_region(batch, "boxes").known.tolist() == [True, True, False, False]


def test_every_batch_of_a_data_set_with_boxes_has_them(make_objects: Callable[..., InMemory]) -> None:
    dataset = with_boxes(make_objects(2), {0: [[4, 6, 20, 14]]})
    without = list(create_loader(dataset, size=24, batch_size=1, train=False))[1]
    assert without.boxes.shape == (1, 1, 4)  # room for one, so that metrics can take the greatest over boxes
    assert not without.has_box.any()
    assert batch_of(make_objects(2)).boxes is None


@pytest.mark.parametrize("num_workers", [0, 1])
def test_boxes_move_with_their_masks(make_objects: Callable[..., InMemory], num_workers: int) -> None:
    """The mask is its box, so whatever is drawn, the box filled is the mask up to the border's pixel."""
    dataset = with_boxes(make_objects(8), {i: [[4, 6, 20, 14]] for i in range(8)})
    flipped = 0
    for epoch in range(3):
        made = create_loader(dataset, size=48, batch_size=8, train=True, augment={"crop": 0.4}, num_workers=num_workers)
        made.sampler.set_epoch(epoch)
        (batch,) = made
        for mask, box, real in zip(batch.masks, batch.boxes[:, 0], batch.has_box[:, 0]):
            if not mask.any():
                continue
            assert real
            rows, columns = mask.nonzero().T
            tight = torch.stack([columns.amin(), rows.amin(), columns.amax() + 1, rows.amax() + 1])
            assert (box - tight).abs().max() <= 1.5
            flipped += int(box[0] > 0 and box[2] == 48)
    assert flipped


def test_a_flip_mirrors(make_objects: Callable[..., InMemory]) -> None:
    dataset = with_boxes(make_objects(12), {i: [[6, 2, 10, 9]] for i in range(12)})
    (batch,) = create_loader(dataset, size=24, batch_size=12, train=True, augment={"crop": 1.0})
    assert {tuple(box.tolist()) for box in batch.boxes[:, 0]} == {(2, 2, 6, 9), (18, 2, 22, 9)}


def test_a_cached_data_set_scales_them(make_objects: Callable[..., InMemory]) -> None:
    dataset = with_boxes(make_objects(2), {0: [[4, 6, 20, 14]]}).keep_in_memory(side=12)
    assert dataset[0].boxes.tolist() == [[2, 3, 10, 7]]
    assert dataset[1].boxes is None


def images(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for i in range(2):
            write_image(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_a_folder_reads_what_the_verb_boxes_writes(tmp_path: Path) -> None:
    root = str(images(tmp_path))
    (tmp_path / "boxes.csv").write_text(
        "path,x1,y1,x2,y2,score,label\nimages/cat/0.png,1,2,3.5,9,0.7,\nimages/cat/0.png,10,2,20,9,,cat\nimages/dog/1.png,,,,,,\n"
    )
    plain = data.create_dataset("folder", root=root, val=0, test=0)["train"]
    train = data.create_dataset("folder", root=root, boxes=str(tmp_path / "boxes.csv"), val=0, test=0)["train"]
    assert train.has_boxes.tolist() == [True, False, False, False]
    assert train[0].boxes.tolist() == [[1, 2, 3.5, 9], [10, 2, 20, 9]]
    assert train[3].boxes is None
    assert train.fingerprint != plain.fingerprint
    content = {
        "images": [{"id": 5, "file_name": "images/dog/0.png", "width": 32, "height": 24}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [4, 5, 10, 6]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    train = data.create_dataset("folder", root=root, boxes=str(tmp_path / "boxes.json"), val=0, test=0)["train"]
    assert train[2].boxes.tolist() == [[4, 5, 14, 11]]
    (tmp_path / "boxes.csv").write_text("path,x1,y1,x2,y2\nother.png,1,2,3,4\n")
    with pytest.raises(SightlineError, match=r"boxes: .*boxes\.csv has no box in any of the 4 images"):
        data.create_dataset("folder", root=root, boxes=str(tmp_path / "boxes.csv"))


def test_pets_take_boxes(pets_folder: Path) -> None:
    (pets_folder / "boxes.csv").write_text("path,x1,y1,x2,y2\nimages/Bengal_12.jpg,1,2,3,4\n")
    test = data.create_dataset("pets", root=str(pets_folder), boxes=str(pets_folder / "boxes.csv"))["test"]
    assert [Path(test.path(int(i))).stem for i in test.has_boxes.nonzero()] == ["Bengal_12"]


def test_rows_of_one_path_are_boxes_of_one_image(tmp_path: Path) -> None:
    images(tmp_path)

    def row(path: str, label: str, *box: float) -> dict[str, object]:
        return {"path": f"images/{path}", "label": label, **dict(zip(("x1", "y1", "x2", "y2"), box or [""] * 4))}

    rows = [row("cat/0.png", "cat", 1, 2, 5, 6), row("dog/0.png", "dog"), row("cat/0.png", "cat", 7, 8, 9, 10)]
    path = write_csv(tmp_path / "list.csv", rows)
    train = data.create_dataset("csv", path=str(path), val=0, test=0)["train"]
    assert train.labels.tolist() == [0, 1]
    assert train[0].boxes.tolist() == [[1, 2, 5, 6], [7, 8, 9, 10]]
    assert train.has_boxes.tolist() == [True, False]
    with pytest.raises(SightlineError, match="has boxes too; leave one out"):
        data.create_dataset("csv", path=str(path), boxes=str(path))
    write_csv(path, [*rows, row("dog/0.png", "cat", 1, 1, 2, 2)])
    with pytest.raises(
        SightlineError, match=r"line 5: the label of images/dog/0\.png is 'cat', and 'dog' in an earlier"
    ):
        data.create_dataset("csv", path=str(path), val=0, test=0)
    write_csv(path, [row("cat/0.png", "cat", 1, 2, 5, "wide"), rows[1]])
    with pytest.raises(SightlineError, match="'wide' is not a finite number"):
        data.create_dataset("csv", path=str(path), val=0, test=0)
