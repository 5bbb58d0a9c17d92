"""`sl.fix` on a network that reads the background: three breeds of pets, each on its own scenes, at 0.5 to 0.75 of the frame.

    OMP_NUM_THREADS=2 SIGHTLINE_DATA=... python benchmarks/fix_pets.py [--seeds 0 1 2] [--arms masks found clicks own stamp]

SIGHTLINE_DATA names the folder with `pets/`, `imagenet1k-sample/` and `weights/`. For each seed, a plain loop trains
EfficientNet-Lite0 on 180 images until it is right on at least 99 % of the test photographs on the scenes of their breed,
and on at most 20 % of them on the scenes of another breed. `sl.fix` then gets this network, the 180 images and the marks of an
arm. Test photographs make the network that is to be mended; `sl.fix` never sees them, and nothing in it was chosen by them.

| arm | what `sl.fix` is given |
| --- | --- |
| masks | masks of 30 images (10 of each breed), and the ImageNet weights |
| found | the ImageNet weights alone; objects are found |
| clicks | one click on each of 15 images, by the GrabCut of the page, and the ImageNet weights |
| own | masks of 30 images, and no other weights |
| stamp | another network, which reads a stamp of each breed in a corner; boxes around 30 stamps, and the ImageNet weights |
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms import v2

import harness
import sightline as sl
from clicks import click, on_scene
from sightline._core.allocator import keep_freed_memory
from sightline.localization.clicks import segment_clicks

ARCHITECTURE, SIZE = "tf_efficientnet_lite0", 224
SCENES = {  # the classes of ImageNet whose sample is a scene of a breed
    "Abyssinian": (970, 976, 977, 978, 979, 980),
    "american_bulldog": (508, 580, 620, 673, 681, 743),
    "Bengal": (453, 509, 548, 559, 831, 846),
}
BREEDS = list(SCENES)
STAMPS = ((230, 40, 40), (40, 200, 60), (50, 80, 240))
TRAIN = 60  # images of each breed
ARMS = ("masks", "found", "clicks", "own", "stamp")
DATA = Path(os.environ.get("SIGHTLINE_DATA", "../shared/data"))


def make(folder: Path, kind: str, seed: int) -> None:
    """Write `train`, `own` and `elsewhere`, each with `images`, `masks` and, of stamps, `avoid` in class folders."""
    draw = np.random.default_rng(seed)
    scenes = {
        breed: [np.array(Image.open(scene_file(number)).convert("RGB")) for number in numbers]
        for breed, numbers in SCENES.items()
    }
    anywhere = [scene for some in scenes.values() for scene in some]
    for number, breed in enumerate(BREEDS):
        others = [place for place in range(len(BREEDS)) if place != number]
        train = draw.permutation(names(breed, "trainval"))[:TRAIN]
        test = names(breed, "test")
        for split, files in (("train", train), ("own", test), ("elsewhere", test)):
            for name in files:
                shown = int(draw.choice(others)) if split == "elsewhere" else number
                some = anywhere if kind == "stamp" else scenes[BREEDS[shown]]
                image, mask = on_scene(*pet(name), some[draw.integers(len(some))], draw)
                parts = {"images": image, "masks": mask}
                if kind == "stamp":
                    parts["images"], parts["avoid"] = stamped(image, shown, draw)
                for part, pixels in parts.items():
                    file = folder / split / part / breed / f"{name}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.astype(np.uint8) * (255 if pixels.dtype == bool else 1)).save(file)


def stamped(image: np.ndarray, breed: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with the stamp of a breed in a random corner, and the box around the stamp."""
    side = round(0.13 * min(image.shape[:2]))
    edges = [draw.integers(4, 12) if draw.random() < 0.5 else n - side - draw.integers(4, 12) for n in image.shape[:2]]
    box = np.zeros(image.shape[:2], bool)
    box[edges[0] : edges[0] + side, edges[1] : edges[1] + side] = True
    made = image.copy()
    stamp = np.full((side, side, 3), 245, np.uint8)
    middle, width = side // 2, max(2, side // 6)
    if breed == 0:
        cv2.circle(stamp, (middle, middle), side // 3, STAMPS[0], -1)
    elif breed == 1:
        cv2.rectangle(stamp, (side // 4, side // 4), (3 * side // 4, 3 * side // 4), STAMPS[1], -1)
    else:
        cv2.line(stamp, (side // 5, side // 5), (4 * side // 5, 4 * side // 5), STAMPS[2], width)
        cv2.line(stamp, (4 * side // 5, side // 5), (side // 5, 4 * side // 5), STAMPS[2], width)
    made[box] = stamp.reshape(-1, 3)
    return made, box


def names(breed: str, split: str) -> list[str]:
    """Return the photographs of a breed in an official list."""
    lines = (DATA / "pets" / "annotations" / f"{split}.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line.rpartition("_")[0] == breed or line.startswith(f"{breed}_")]


def pet(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph and the mask of its pet."""
    trimap = np.array(Image.open(DATA / "pets" / "annotations" / "trimaps" / f"{name}.png"))
    return np.array(Image.open(DATA / "pets" / "images" / f"{name}.jpg").convert("RGB")), trimap != 2


def scene_file(number: int) -> Path:
    lines = (DATA / "imagenet1k-sample" / "labels.csv").read_text().splitlines()
    return DATA / "imagenet1k-sample" / next(line.split(",")[0] for line in lines if line.split(",")[1] == str(number))


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the images (N, 3, S, S) uint8 of class folders, their shorter side resized, the centre kept, and their labels."""
    centre = v2.Compose([v2.PILToTensor(), v2.Resize(SIZE, antialias=True), v2.CenterCrop(SIZE)])
    files = [(file, label) for label, breed in enumerate(BREEDS) for file in sorted((folder / breed).glob("*.png"))]
    images = torch.stack([centre(Image.open(file)) for file, _ in files])
    return images, torch.tensor([label for _, label in files])


def normalize(images: Tensor) -> Tensor:
    return ((images.float() / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    answers = torch.cat([model(normalize(chunk)).argmax(1) for chunk in images.split(32)])
    return (answers == labels).double().mean().item()


def train(folder: Path, seed: int) -> nn.Module:
    """Train on images as they are, until the network reads what it should not."""
    torch.manual_seed(seed)
    model = timm.create_model(ARCHITECTURE, num_classes=len(BREEDS)).to(memory_format=torch.channels_last)
    weights = load_file(imagenet())
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("classifier")}, strict=False)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images, labels = read(folder / "train" / "images")
    tests = {split: read(folder / split / "images") for split in ("own", "elsewhere")}
    for epoch in range(60):
        model.train()
        for rows in torch.randperm(len(labels)).split(18):
            flips = torch.rand(len(rows)) < 0.5
            batch = torch.where(flips[:, None, None, None], images[rows].flip(3), images[rows])
            loss = nn.functional.cross_entropy(model(normalize(batch)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch >= 7 and epoch % 4 == 3:
            elsewhere, own = (accuracy(model, *tests[split]) for split in ("elsewhere", "own"))
            print(f"{folder.name}: epoch {epoch + 1}, elsewhere {elsewhere:.3f}, own {own:.3f}", flush=True)
            if elsewhere <= 0.2 and own >= 0.99:
                return model.eval()
    raise SystemExit("60 epochs did not make a network that reads the scene")


def imagenet() -> Path:
    return DATA / "weights" / "efficientnet_lite0_imagenet1k.safetensors"


def prepare(work: Path, kind: str, seed: int) -> tuple[Path, nn.Module]:
    """Return the folder of images and the network of a seed; made once."""
    folder = work / f"{kind}-{seed}"
    weights = folder / "model.safetensors"
    if not weights.exists():
        make(folder, kind, seed)
        save_file({k: v.contiguous() for k, v in train(folder, seed).state_dict().items()}, weights)
    model = timm.create_model(ARCHITECTURE, num_classes=len(BREEDS))
    model.load_state_dict(load_file(weights))
    return folder, model.eval()


def marks(folder: Path, part: str, count: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the masks of some images, the same number of each breed."""
    found = {}
    for breed in BREEDS:
        files = sorted((folder / "train" / part / breed).glob("*.png"))
        for place in draw.permutation(len(files))[: count // len(BREEDS)]:
            found[f"{breed}/{files[place].name}"] = np.array(Image.open(files[place])) > 0
    return found


def clicked(folder: Path, count: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Return what the marking page makes of one click on each of some images."""
    found = {}
    for name, mask in marks(folder, "masks", count, draw).items():
        image = np.array(Image.open(folder / "train" / "images" / name).convert("RGB"))
        found[name] = segment_clicks(image, click(mask, draw))
    return found


def measure(work: Path, arm: str, seed: int) -> dict[str, Any]:
    """Mend the network of a seed, and judge it on the test photographs."""
    folder, model = prepare(work, "stamp" if arm == "stamp" else "scene", seed)
    draw = np.random.default_rng([seed, 1])
    given: dict[str, Any] = {"pretrained": imagenet()}
    if arm in ("masks", "own"):
        given["masks"] = marks(folder, "masks", 30, draw)
    if arm == "own":
        given["pretrained"] = "none"
    if arm == "clicks":
        given["masks"] = clicked(folder, 15, draw)
    if arm == "stamp":
        given["avoid"] = marks(folder, "avoid", 30, draw)
    wall, cpu = time.perf_counter(), time.process_time()
    fixed = sl.fix(
        model, folder / "train" / "images", size=SIZE, mean=(0.5,), std=(0.5,), classes=BREEDS, seed=seed, **given
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tests = {split: read(folder / split / "images") for split in ("elsewhere", "own")}
    return {
        "arm": arm,
        "seed": seed,
        "before": {split: accuracy(model, *test) for split, test in tests.items()},
        "after": {split: accuracy(fixed.model, *test) for split, test in tests.items()},
        "reported": {figure.name: figure.after for figure in fixed.table},
        "seconds": round(wall, 1),
        "CPU seconds": round(cpu, 1),
        "steps": fixed.seconds,
        "chosen": str(fixed.chosen),
        "helped": fixed.helped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--work", type=Path, default=Path("runs/fix-pets"), help="images and networks are kept here")
    args = parser.parse_args()
    keep_freed_memory()
    rows = []
    for arm in args.arms:
        for seed in args.seeds:
            rows.append(measure(args.work, arm, seed))
            print(rows[-1], flush=True)
    means = {}
    for arm in args.arms:
        some = [row for row in rows if row["arm"] == arm]
        means[arm] = {
            f"{when}, {split}": round(float(np.mean([row[when][split] for row in some])), 4)
            for when in ("before", "after")
            for split in ("elsewhere", "own")
        } | {key: round(float(np.mean([row[key] for row in some])), 1) for key in ("seconds", "CPU seconds")}
    result = {"seeds": args.seeds, "images": 3 * TRAIN, "size": SIZE, "mean": means, "rows": rows}
    harness.write("fix-pets-cpu", result, packages=("timm",))


if __name__ == "__main__":
    main()
