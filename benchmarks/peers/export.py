"""Writes the two sets once, as square PNGs and one CSV file each, so that every method reads the same pixels.

SIGHTLINE_DATA names the folder with `pets/` and `imagenet1k-sample/`. 40 images of each of three breeds train, 40 others
validate, and the official test images test. Validation and test have every pet twice: in the context of its own class
(`_own`) and in that of another (`_other`). In "recomposed" the context is the background, and every training pet stands on
backgrounds of its class. In "stamped" it is a colored patch in a corner, which is that of the class in 9 of 10 training
images and that of another class in the rest.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.io import write_png

from protocol import CLASSES, COUNT, LARGE, ROOT, SETS, TESTED
from sightline.data.dataset import ImageDataset
from sightline.data.loader import create_loader
from sightline.data.registry import DATASETS
from sightline.datasets.derived.marked import Marked
from sightline.datasets.derived.marks import make_variants

PETS = {"name": "pets", "root": "pets", "breeds": list(CLASSES), "per_class": COUNT, "val": COUNT}
SCENES = {
    "Abyssinian": [970, 976, 977, 978, 979, 980],
    "american bulldog": [508, 580, 620, 673, 681, 743],
    "Bengal": [453, 509, 548, 559, 831, 846],
}


def recomposed(pets: Mapping[str, Any], **options: Any) -> dict[str, ImageDataset]:
    """Return the splits whose context is the background; validation has scenes of its own."""
    splits = DATASETS.create_source({"name": "recomposed", "source": pets, "val_scenes": 2, **options})
    names = {"train": "train", "val": "val_own", "val_shifted": "val_other"}
    return {new: splits[old] for old, new in (names | {"test_iid": "test_own", "test_shifted": "test_other"}).items()}


def stamped(pets: Mapping[str, Any], correlation: float = 0.9) -> dict[str, ImageDataset]:
    """Return the splits whose context is a stamp."""
    source = DATASETS.create_source(pets)
    marks = make_variants({"kind": "patch", "size": 0.15, "place": "corner"}, len(source.classes))
    shares = {"train": ("train", correlation)}
    shares |= {
        f"{split}_{which}": (split, float(which == "own")) for split in ("val", "test") for which in ("own", "other")
    }
    return {
        name: Marked(source[split], marks, split=split, correlation=share, rest="other")
        for name, (split, share) in shares.items()
    }


def contexts_of(data: ImageDataset) -> Tensor:
    """Return the class of the context of each image (N,)."""
    if isinstance(data, Marked):
        return data.owners
    assert data.group_ids is not None
    return torch.as_tensor(data.group_ids) % len(data.classes)


def write(splits: Mapping[str, ImageDataset], folder: Path) -> None:
    """Write the images and masks of a set, and `images.csv` with what is known of them.

    `training.csv` leaves out validation; `groups.csv` has the validation images as training images, for methods that retrain
    the last layer on images with groups.
    """
    rows: list[dict[str, str]] = []
    for name, data in splits.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        step = max(1, len(data) // TESTED) if TESTED and name.startswith("test") else 1
        shown = range(0, len(data), step)
        contexts, place = contexts_of(data)[::step].tolist(), 0
        for batch in create_loader(data, size=LARGE, batch_size=32, train=False, indices=shown):
            assert batch.masks is not None
            for image, mask, label in zip(batch.images, batch.masks, batch.labels.tolist()):
                file, mask_file = f"{name}/{place:03}.png", f"{name}/{place:03}-mask.png"
                write_png((image * 255).round().to(torch.uint8), str(folder / file))
                write_png((mask == 1).to(torch.uint8)[None] * 255, str(folder / mask_file))
                group = f"{label} in {contexts[place]}"
                rows.append(
                    {"path": file, "label": data.classes[label], "mask": mask_file, "split": name, "group": group}
                )
                place += 1
    parts = {part: [row for row in rows if row["split"].startswith(part)] for part in ("train", "val", "test")}
    _write_rows(parts["train"] + parts["test"], folder / "training.csv")
    _write_rows([row | {"split": "train"} for row in parts["val"]] + parts["test"], folder / "groups.csv")
    _write_rows(rows, folder / "images.csv")  # last: it says that the set is complete


def _write_rows(rows: list[dict[str, str]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    options = {"backgrounds": "imagenet1k-sample/labels.csv", "scenes": SCENES, "scale": (0.9, 1.0), "size": LARGE}
    makers = {"recomposed": lambda: recomposed(PETS, **options), "stamped": lambda: stamped(PETS)}
    for name in SETS:
        if not (ROOT / "sets" / name / "images.csv").exists():
            write(makers[name](), ROOT / "sets" / name)


if __name__ == "__main__":
    main()
