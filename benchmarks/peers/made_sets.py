"""Made sets whose shortcut is known, as files; and what sightline names on each, by the data alone and by a network.

A set has 40 images of each of three breeds to train on and 40 to check. In "dark", "blurred" and "odd size" the breed decides
how dark, blurred or wide an image is; in "stamp", the color of a patch in a corner; in "background", the scene; "none" has the
photographs.

    made_sets.py data        write the sets, and associate the properties of the images with the breeds
    made_sets.py network     diagnose a network on each set
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.io import write_png
from torchvision.transforms.v2 import functional as F

import efficientnet
import sightline as sl
from export import PETS, SCENES
from protocol import CLASSES, LARGE, ROOT, SIZE
from sightline.data.dataset import ImageDataset
from sightline.data.loader import create_loader
from sightline.data.registry import DATASETS
from sightline.diagnosis import diagnose
from sightline.diagnosis.properties import measure_properties
from sightline.diagnosis.shortcuts import LEVEL, STRONG
from sightline.heads import fit_linear
from sightline.localization.annotation import annotate

KINDS = ("dark", "blurred", "odd size", "stamp", "background", "none")
TESTS = {"stamp": "test_same", "background": "test_iid"}  # where the shortcut is that of training
SEEDS = (0,)
COUNT = 40  # images of each breed to train on, and as many to check
SPEC = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (SIZE, SIZE))


def changed(image: Tensor, label: int, kind: str) -> Tensor:
    """Return an image (3, H, W) of uint8 with the shortcut of its label."""
    if kind == "dark":
        return (image * (1.0, 0.6, 0.3)[label]).to(torch.uint8)
    if kind == "blurred" and label:
        return F.gaussian_blur(image, [25, 25], [2.0 * label] * 2)
    if kind == "odd size":
        return F.resize(image, [LARGE, (LARGE, 2 * LARGE, 4 * LARGE)[label]])
    return image


def source_of(kind: str, seed: int) -> dict[str, ImageDataset]:
    """Return the data sets "train" and "test" that the images of a set come from."""
    pets = {**PETS, "seed": seed, "val": 0}
    options: dict[str, Any] = pets
    if kind == "background":
        options = {"name": "recomposed", "source": pets, "scenes": SCENES, "val_scenes": 0, "seed": seed}
        options["backgrounds"] = "imagenet1k-sample/labels.csv"
    if kind == "stamp":
        mark = {"kind": "patch", "size": 0.15, "place": "bottom_right"}
        options = {"name": "marked", "source": pets, "mark": mark, "tests": ["same"], "seed": seed}
    splits = DATASETS.create_source(options)
    return {"train": splits["train"], "test": splits[TESTS.get(kind, "test")]}


def written(kind: str, seed: int, split: str) -> ImageDataset:
    """Return a split of a set from its files, which are written where there are none."""
    folder = ROOT / "made" / f"{kind}-{seed}".replace(" ", "-")
    table = folder / f"{split}.csv"
    if not table.exists():
        data, rows = source_of(kind, seed)[split], []
        (folder / split).mkdir(parents=True, exist_ok=True)
        places = [int(n) for label in range(len(CLASSES)) for n in (data.labels == label).nonzero()[:COUNT, 0]]
        for batch in create_loader(data, size=LARGE, batch_size=30, train=False, indices=places):
            assert batch.masks is not None
            for image, mask, label in zip(batch.images, batch.masks, batch.labels.tolist()):
                name = f"{split}/{len(rows):03}"
                picture = changed((image * 255).round().to(torch.uint8), label, kind)
                region = (mask == 1).to(torch.uint8)[None] * 255
                write_png(picture, str(folder / f"{name}.png"))
                write_png(
                    F.resize(region, list(picture.shape[1:]), F.InterpolationMode.NEAREST),
                    str(folder / f"{name}-mask.png"),
                )
                rows.append({"path": f"{name}.png", "label": CLASSES[label], "mask": f"{name}-mask.png"})
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    path = str(Path(table).resolve())
    return DATASETS.create_source({"name": "csv", "path": path, "classes": list(CLASSES), "val": 0, "test": 0})["train"]


def associated(kind: str, seed: int) -> list[str]:
    """Return the properties that go with the breed as strongly as `diagnose` demands."""
    shown = annotate(written(kind, seed, "test"), size=LARGE, samples=3 * COUNT, annotation="masks", seed=seed)
    return [each.name for each in measure_properties(shown) if each.strength >= STRONG and each.p < LEVEL]


def probed(batches: list[sl.Batch]) -> nn.Module:
    """Return the ImageNet network with a last layer that is fitted to images, which follows whatever tells the breeds apart."""
    network = efficientnet.pretrained(0).eval()
    with torch.no_grad():
        maps = [network.forward_features(SPEC.normalize(batch.images)) for batch in batches]
    labels = torch.cat([batch.labels for batch in batches])
    pooled = torch.cat([each.mean((2, 3)) for each in maps])
    network.classifier = efficientnet.linear(*fit_linear(pooled, labels, strength=0.1, classes=len(CLASSES)))
    return network


def diagnosed(kind: str, seed: int) -> str:
    """Return what `diagnose` names for a network that was trained on a set."""
    train, test = (
        list(create_loader(written(kind, seed, split), size=SIZE, batch_size=30, train=False))
        for split in ("train", "test")
    )
    found = diagnose(probed(train), test, input_spec=SPEC, annotation="masks", seed=seed)
    return "" if found.shortcuts is None else found.shortcuts.named


def main() -> None:
    torch.set_num_threads(1)
    measure = {"data": associated, "network": diagnosed}[sys.argv[1]]
    file = ROOT / "made" / f"sightline-{sys.argv[1]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(file.read_text()) if file.exists() else []
    for seed in SEEDS:
        for kind in KINDS:
            if not any((row["set"], row["seed"]) == (kind, seed) for row in rows):
                rows.append({"set": kind, "seed": seed, "named": measure(kind, seed)})
                print(rows[-1], flush=True)
                file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
