"""How often `diagnose` names the shortcut of a network that reads pets, on made sets of photographs whose shortcut is known.

    OMP_NUM_THREADS=1 SIGHTLINE_DATA=... python benchmarks/shortcuts_on_pets.py [--seeds 0 1 2 3 4]

SIGHTLINE_DATA names the folder with `pets/`, `imagenet1k-sample/` and `weights/`. A seed draws three breeds. In a recomposed
set, each breed stands on scenes of its own; in a stamped set, a colored patch of each breed lies in the same corner; in a set
with brightness, the photographs of each breed are darker or brighter; a plain set holds the photographs. EfficientNet-Lite0 is
fine-tuned by a plain loop on 40 images of each breed and diagnosed on 40 test images of each breed of the same kind, with
the masks (or, with `--objects grabcut`, with objects that GrabCut finds). `shifted` is the accuracy on images with the scenes,
stamps or brightness of another breed: a network that has not learned the shortcut keeps its accuracy there.
"""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import harness
import sightline as sl
from sightline._core.allocator import keep_freed_memory
from sightline.data.loader import create_loader
from sightline.data.registry import DATASETS
from sightline.diagnosis import diagnose
from sightline.localization.annotation import Annotation

SIZE, TRAIN, TEST = 128, 40, 40
SPEC = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (SIZE, SIZE))
CORNERS = ("top left", "top right", "bottom left", "bottom right")
KINDS = ("recomposed", "stamped", "brightness", "plain")
DATA = Path(os.environ.get("SIGHTLINE_DATA", "../shared/data"))


def breeds_of(seed: int) -> list[str]:
    """Return three breeds."""
    names = sorted({line.split()[0].rpartition("_")[0].replace("_", " ") for line in listed("trainval")})
    return [str(name) for name in np.random.default_rng(seed).choice(names, 3, replace=False)]


def listed(split: str) -> list[str]:
    return (DATA / "pets" / "annotations" / f"{split}.txt").read_text().splitlines()


def scenes_of(breeds: list[str], seed: int) -> dict[str, list[int]]:
    """Return six classes of scenes or things for each breed, out of ImageNet's classes that show no animal."""
    draw = np.random.default_rng([seed, 1])
    chosen = draw.choice(np.arange(400, 980), (len(breeds), 6), replace=False)
    return {breed: [int(number) for number in some] for breed, some in zip(breeds, chosen)}


def options_of(kind: str, seed: int) -> dict[str, Any]:
    """Return the name and the options of a data set."""
    breeds = breeds_of(seed)
    pets = {"name": "pets", "root": str(DATA / "pets"), "breeds": breeds, "per_class": TRAIN, "val": 0.0, "seed": seed}
    if kind == "recomposed":
        backgrounds = str(DATA / "imagenet1k-sample" / "labels.csv")
        scenes = scenes_of(breeds, seed)
        return {
            "name": kind,
            "source": pets,
            "backgrounds": backgrounds,
            "scenes": scenes,
            "val_scenes": 0,
            "seed": seed,
        }
    if kind == "plain":
        return pets
    mark = (
        {"kind": "patch", "size": 0.15, "place": CORNERS[seed % 4].replace(" ", "_")}
        if kind == "stamped"
        else {"kind": kind}
    )
    return {"name": "marked", "source": pets, "mark": mark, "seed": seed}


def batches(data: Any, places: Iterable[int]) -> list[sl.Batch]:
    return list(create_loader(data, size=SIZE, batch_size=32, train=False, indices=list(places)))  # type: ignore[arg-type]


def train(found: list[sl.Batch], seed: int) -> nn.Module:
    """Fine-tune the ImageNet network by cross-entropy."""
    torch.manual_seed(seed)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=3).to(memory_format=torch.channels_last)
    weights = load_file(DATA / "weights" / "efficientnet_lite0_imagenet1k.safetensors")
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("classifier")}, strict=False)
    images, labels = (torch.cat([getattr(batch, name) for batch in found]) for name in ("images", "labels"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model.train()
    for _ in range(16):
        for rows in torch.randperm(len(labels)).split(20):
            loss = nn.functional.cross_entropy(model(SPEC.normalize(images[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, found: list[sl.Batch]) -> float:
    right = torch.cat([model(SPEC.normalize(batch.images)).argmax(1) == batch.labels for batch in found])
    return round(right.double().mean().item(), 3)


def some_of_each(labels: Tensor, count: int) -> list[int]:
    return [int(n) for label in labels.unique() for n in (labels == label).nonzero()[:count, 0]]


def measure(kind: str, seed: int, objects: Annotation) -> dict[str, Any]:
    """Train on one set, and diagnose."""
    splits = DATASETS.create_source(options_of(kind, seed))
    iid, other = {"recomposed": ("test_iid", "test_shifted"), "plain": ("test", None)}.get(
        kind, ("test_same", "test_swapped")
    )
    model = train(batches(splits["train"], range(len(splits["train"]))), seed)
    shown = batches(splits[iid], some_of_each(splits[iid].labels, TEST))
    stamp = f"a mark in the {CORNERS[seed % 4]} corner"
    expected = {"recomposed": "the background as a whole", "stamped": stamp, "brightness": "brightness or color cast"}
    found = diagnose(model, shown, input_spec=SPEC, annotation=objects, seed=seed)
    shifted = (
        None if other is None else accuracy(model, batches(splits[other], some_of_each(splits[other].labels, TEST)))
    )
    named = "" if found.shortcuts is None else found.shortcuts.named
    row = {
        "set": kind, "seed": seed, "accuracy": round(found.measurements["accuracy"].value, 3),
        "shifted": shifted, "verdict": found.verdict.answer, "expected": expected.get(kind, ""), "named": named,
        "hit": named == expected.get(kind, ""),
    }  # fmt: skip
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--objects", choices=["masks", "grabcut"], default="masks")
    args = parser.parse_args()
    keep_freed_memory()
    rows = [measure(kind, seed, args.objects) for kind in args.kinds for seed in args.seeds]
    shortcut, plain = ([row for row in rows if (row["set"] == "plain") == wanted] for wanted in (False, True))
    counts = {
        "hits": f"{sum(row['hit'] for row in shortcut)} of {len(shortcut)}",
        "false alarms": f"{sum(not row['hit'] for row in plain)} of {len(plain)}",
    }
    print(counts)
    result = {"seeds": args.seeds, "objects": args.objects, "counts": counts, "rows": rows}
    harness.write("shortcuts-on-pets", result, packages=("timm",))


if __name__ == "__main__":
    main()
