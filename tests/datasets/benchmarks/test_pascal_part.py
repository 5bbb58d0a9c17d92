"""PASCAL-Part in a small copy of its official layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from layouts import write_image
from sightline import data
from sightline.data.loader import create_loader
from sightline.datasets.benchmarks.pascal_part import ANIMALS
from sightline.errors import SightlineError
from sightline.verification.verify import verify_dataset

HEIGHT, WIDTH = 12, 16


def region(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[rows, columns] = 1
    return mask


def animal(name: str, mask: np.ndarray, parts: dict[str, np.ndarray]) -> dict:
    drawn = np.array(list(parts.items()), dtype=[("part_name", object), ("mask", object)])
    return {"class": name, "class_ind": 1.0, "mask": mask, "parts": drawn}


def write_parts(folder: Path, name: str, animals: list[dict]) -> None:
    kinds = [(key, object) for key in ("class", "class_ind", "mask", "parts")]
    objects = np.array([tuple(each.values()) for each in animals], dtype=kinds)
    folder.mkdir(exist_ok=True)
    savemat(folder / f"{name}.mat", {"anno": {"imname": name, "objects": objects}})


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Three images a class in train, two in val; two dogs and a person in the first dog's; one of a cat and a dog."""
    voc = tmp_path / "VOCdevkit/VOC2010"
    (voc / "ImageSets/Main").mkdir(parents=True)
    names = {
        part: [f"{part}_{a}_{i}" for a in ANIMALS for i in range(count)] for part, count in (("train", 3), ("val", 2))
    }
    names["train"] += ["train_both", "train_none"]
    for part, listed in names.items():
        for each in ANIMALS:
            flags = [
                1 if each in name.split("_") or (name == "train_both" and each in ("cat", "dog")) else -1
                for name in listed
            ]
            lines = [f"{name} {flag:2d}" for name, flag in zip(listed, flags)]
            (voc / "ImageSets/Main" / f"{each}_{part}.txt").write_text("\n".join(lines) + "\n")
        for name in listed:
            write_image(voc / "JPEGImages" / f"{name}.jpg", (90, 90, 90), (WIDTH, HEIGHT))
            kind = name.split("_")[1]
            body, head = region(slice(2, 10), slice(2, 8)), region(slice(2, 5), slice(2, 8))
            found = [animal(kind, body, {"head": head, "torso": body - head})]
            if name == "train_dog_0":
                right = region(slice(4, 8), slice(10, 14))
                found += [
                    animal(
                        "dog",
                        right,
                        {"head": region(slice(4, 8), slice(10, 12)), "tail": region(slice(7, 8), slice(13, 14))},
                    ),
                    animal("person", region(slice(0, 2), slice(0, 16)), {"hair": region(slice(0, 1), slice(0, 16))}),
                ]
            if name == "train_dog_1":
                found = [animal("dog", body, {})]
            write_parts(tmp_path / "Annotations_Part", name, found)
    return tmp_path


def test_images_of_one_animal_are_read_with_their_parts(layout: Path) -> None:
    splits = data.create_dataset("pascal_part", root=str(layout), val=1)
    assert splits.classes == list(ANIMALS)
    assert {name: len(split) for name, split in splits.items()} == {"train": 12, "val": 6, "test": 12}
    assert not any(
        "both" in split.path(i) or "none" in split.path(i) for split in splits.values() for i in range(len(split))
    )
    everything = data.create_dataset("pascal_part", root=str(layout), val=0)["train"]
    dog = next(i for i in range(len(everything)) if everything.path(i).endswith("train_dog_0.jpg"))
    assert everything.classes[everything.labels[dog]] == "dog"
    expected = torch.from_numpy(region(slice(2, 10), slice(2, 8)) | region(slice(4, 8), slice(10, 14)))
    assert torch.equal(everything[dog].mask, expected)  # both dogs, and not the person
    parts = everything.parts(dog)
    assert set(parts) == {"head", "torso", "tail"}
    heads = region(slice(2, 5), slice(2, 8)) | region(slice(4, 8), slice(10, 12))
    assert torch.equal(parts["head"], torch.from_numpy(heads))
    assert int(parts["tail"].sum()) == 1
    assert torch.equal(everything[dog].parts, torch.stack(list(parts.values())))
    bare = next(i for i in range(len(everything)) if everything.path(i).endswith("train_dog_1.jpg"))
    assert everything.parts(bare) == {}
    assert everything[bare].parts.shape == (0, HEIGHT, WIDTH)


def test_batches_have_the_parts_in_evaluation_alone(layout: Path) -> None:
    everything = data.create_dataset("pascal_part", root=str(layout), val=0)["train"]
    dogs = [i for i in range(len(everything)) if "train_dog" in everything.path(i)]
    (batch,) = create_loader(everything, size=HEIGHT, batch_size=4, train=False, indices=dogs)
    assert batch.parts.shape == (3, 3, HEIGHT, HEIGHT)  # two dogs' three parts; the others have fewer
    assert batch.parts.flatten(2).any(2).sum(1).tolist() == [3, 0, 2]
    cut = everything[dogs[0]].parts[:, :, 2:14]  # the centre square
    assert torch.equal(batch.parts[0], cut.as_subclass(torch.Tensor))
    (batch,) = create_loader(everything, size=HEIGHT, batch_size=4, train=True, indices=dogs)
    assert batch.parts is None
    kept = data.create_dataset("pascal_part", root=str(layout), val=0)["train"].keep_in_memory()
    assert all(kept[i].parts is None for i in dogs)


def test_the_check_reads_every_annotation(layout: Path) -> None:
    assert not verify_dataset("pascal_part", {"root": str(layout)}).problems
    (layout / "Annotations_Part" / "train_cow_0.mat").write_bytes(b"no MATLAB")
    (layout / "VOCdevkit/VOC2010/JPEGImages/val_bird_0.jpg").unlink()
    found = verify_dataset("pascal_part", {"root": str(layout)})
    assert found.problems
    lines = [line for findings in found.found.values() for some in findings.values() for line in some]
    assert any("train_cow_0" in line for line in lines)
    assert any("val_bird_0" in line for line in lines)
    assert len(lines) == 2
    whole = data.create_dataset("pascal_part", root=str(layout), val=0, skip_corrupt=True)
    assert (len(whole["train"]), len(whole["test"])) == (17, 11)


def test_an_annotation_of_another_size_is_rejected(layout: Path) -> None:
    write_image(layout / "VOCdevkit/VOC2010/JPEGImages/val_bird_0.jpg", (90, 90, 90), (WIDTH, HEIGHT + 1))
    with pytest.raises(SightlineError, match="val_bird_0"):
        data.create_dataset("pascal_part", root=str(layout))["test"][0]


def test_missing_files_error_names_the_source(layout: Path, tmp_path: Path) -> None:
    (layout / "Annotations_Part").rename(layout / "elsewhere")
    with pytest.raises(SightlineError, match=r"Annotations_Part.*roozbehm"):
        data.create_dataset("pascal_part", root=str(layout))
    with pytest.raises(SightlineError, match=r"ImageSets.*roozbehm"):
        data.create_dataset("pascal_part", root=str(layout / "elsewhere"))
