"""Small made copies of data sets in their official layouts, under the names by which the shipped recipes look for them."""

import base64
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 36)  # width, height
BREEDS = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 6, "Sphynx": 34}
SCENES = (970, 976, 977, 978, 979, 980, 508, 580, 620, 673, 681, 743, 453, 509, 548, 559, 831, 846)
VOC = {1: "aeroplane", 3: "bird", 4: "boat"}
SPECIES = ("Black_footed_Albatross", "Indigo_Bunting", "Laysan_Albatross")
RIVAL10 = ("n03796401", "n02814533", "n02690373")  # truck, car, plane
NAMED = (
    "n02007558",
    "n02099601",
    "n02077923",
    "n01944390",
)  # flamingo, golden retriever, sea lion, snail: studies name them
THINGS = ("bird", "cat", "ship")


def picture(label: int, number: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """An object on noise, and where it is: its colour tells the class, its place and tint the number."""
    draw = np.random.default_rng([label, number])
    width, height = size
    image = draw.integers(60, 180, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    across, down = draw.uniform(0.35, 0.65, 2)
    inside = ((x / width - across) / 0.28) ** 2 + ((y / height - down) / 0.3) ** 2 < 1
    colour = np.array([(230, 40, 40), (40, 220, 60), (50, 60, 230), (230, 220, 40)][label % 4])
    image[inside] = colour + draw.integers(-25, 25, (inside.sum(), 3))
    return image.clip(0, 255).astype(np.uint8), inside


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def encoded(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def rim(inside: np.ndarray) -> np.ndarray:
    """The pixels just inside the border of an object."""
    core = inside.copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        core &= np.roll(inside, shift, axis)
    return inside & ~core


def make_all(root: Path) -> None:
    """Every data set, below one folder."""
    pets(root / "pets")
    scenes(root / "imagenet1k-sample")
    voc(root / "VOC" / "VOC2012")
    cub(root / "CUB_200_2011")
    imagenet9(root / "bg_challenge")
    rival10(root / "RIVAL10")
    imagenet(root / "imagenet")
    listed_images(root / "aerial", THINGS, each=6)
    for folder, name in (("cifar10", "cifar10"), ("data/cifar10", "cifar10"), ("data/cifar100", "cifar100")):
        cifar(root / folder, name)
    stl10(root / "data" / "stl10" / "stl10_binary")


def pets(root: Path, train: int = 8, test: int = 4) -> None:
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, (breed, number) in enumerate(BREEDS.items()):
        for i in range(train + test):
            image, inside = picture(label, i)
            save(root / "images" / f"{breed}_{i}.jpg", image)
            trimap = np.where(inside, np.where(rim(inside), 3, 1), 2).astype(np.uint8)
            save(root / "annotations" / "trimaps" / f"{breed}_{i}.png", trimap)
            lists["trainval" if i < train else "test"].append(f"{breed}_{i} {number} 1 1")
    for part, lines in lists.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def scenes(root: Path) -> None:
    lines = ["path,label"]
    for number in SCENES:
        noise = np.random.default_rng(number).integers(0, 256, (5, 6, 3)).astype(np.uint8)
        save(root / f"{number}.png", noise.repeat(8, 0).repeat(8, 1))
        lines.append(f"{number}.png,{number}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def voc(root: Path, train: int = 6, test: int = 3) -> None:
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for number, name in VOC.items():
        for i in range(train + test):
            image, inside = picture(number, i)
            mask = np.where(inside, np.where(rim(inside), 255, number), 0).astype(np.uint8)
            save(root / "JPEGImages" / f"{name}{i}.jpg", image)
            save(root / "SegmentationClass" / f"{name}{i}.png", mask)
            lists["train" if i < train else "val"].append(f"{name}{i}")
    for part, names in lists.items():
        file = root / "ImageSets" / "Segmentation" / f"{part}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(names) + "\n")


def cub(root: Path, train: int = 5, test: int = 3) -> None:
    lists: dict[str, list[str]] = {
        name: [] for name in ("classes", "images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    for label, species in enumerate(SPECIES):
        folder = f"{label + 1:03}.{species}"
        lists["classes"].append(f"{label + 1} {folder}")
        for i in range(train + test):
            number = len(lists["images"]) + 1
            image, inside = picture(label, i)
            save(root / "images" / folder / f"{species}_{i:04}.jpg", image)
            save(root / "segmentations" / folder / f"{species}_{i:04}.png", (255 * inside).astype(np.uint8))
            lists["images"].append(f"{number} {folder}/{species}_{i:04}.jpg")
            lists["image_class_labels"].append(f"{number} {label + 1}")
            lists["train_test_split"].append(f"{number} {int(i < train)}")
            lists["bounding_boxes"].append(f"{number} 4.0 4.0 24.0 24.0")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def imagenet9(root: Path, train: int = 5, test: int = 3) -> None:
    for label, folder in enumerate(("00_dog", "01_bird", "02_wheeled vehicle")):
        for part, count in (("train", train), ("val", test)):
            for i in range(count):
                image, inside = picture(label, i if part == "train" else train + i)
                save(root / "original" / part / folder / f"n0_{i}.JPEG", image)
                if part == "val":
                    save(root / "mixed_rand" / part / folder / f"n0_{i}.JPEG", image[:, ::-1])
                    mask = root / "fg_mask" / "val" / folder / f"n0_{i}.npy"
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    np.save(mask, inside)


def rival10(root: Path, train: int = 5, test: int = 3) -> None:
    for label, wnid in enumerate(RIVAL10):
        for part, count in (("train", train), ("test", test)):
            for i in range(count):
                image, inside = picture(label, i if part == "train" else train + i)
                file = save(root / part / "ordinary" / f"{wnid}_{i}.JPEG", image)
                whole = np.repeat((255 * inside).astype(np.uint8)[..., None], 3, 2)
                known = {"entire-object": base64.b64encode(encoded(whole)).decode()}
                file.with_name(f"{wnid}_{i}_attr_dict.pkl").write_bytes(pickle.dumps(known))


def imagenet(root: Path, train: int = 4, val: int = 4) -> None:
    for label, wnid in enumerate(NAMED):
        for part, count in (("train", train), ("val", val)):
            for i in range(count):
                image, _ = picture(label, i if part == "train" else train + i)
                save(root / part / wnid / f"ILSVRC2012_{part}_{label + len(NAMED) * i:08}.JPEG", image)


def listed_images(root: Path, names: tuple[str, ...], each: int) -> None:
    lines = ["path,label,mask,split"]
    for label, name in enumerate(names):
        for i in range(each):
            image, inside = picture(label, i)
            save(root / f"{name}_{i}.jpg", image)
            save(root / f"{name}_{i}_mask.png", inside.astype(np.uint8))
            part = "train" if i < each * 2 // 3 else "test"
            lines.append(f"{name}_{i}.jpg,{name},{name}_{i}_mask.png,{part}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def cifar(root: Path, name: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part, start, count in (("train", 0, 8), ("test", 8, 4)):
        with zipfile.ZipFile(root / f"{name}-{part}.zip", "w") as archive:
            for kind, i, image in _things((32, 32), start, count):
                archive.writestr(f"{part}/{kind}/{i:04}.png", encoded(image))


def stl10(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "class_names.txt").write_text("\n".join(THINGS) + "\n")
    for part, start, count in (("train", 0, 6), ("test", 6, 4)):
        found = list(_things((96, 96), start, count))
        pixels = np.stack([image.transpose(2, 1, 0) for _, _, image in found])  # colours, columns, rows
        pixels.tofile(root / f"{part}_X.bin")
        np.array([THINGS.index(kind) + 1 for kind, _, _ in found], dtype=np.uint8).tofile(root / f"{part}_y.bin")


def _things(size: tuple[int, int], start: int, count: int) -> Iterator[tuple[str, int, np.ndarray]]:
    for label, kind in enumerate(THINGS):
        for i in range(start, start + count):
            yield kind, i, picture(label, i, size)[0]
