"""ImageNet-1k (ILSVRC 2012) in its official layout, or with the validation images in folders of their classes.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from sightline._core.checks import check_choice, check_count
from sightline._core.csv_files import read_csv
from sightline._core.reading import RESTORE, reading
from sightline._core.seeding import generator
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate
from sightline.data.image_listing import list_images
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.datasets.imagenet_names import WNID, names_of_wnids
from sightline.errors import SightlineError
from sightline.formats.box_files import boxed_parts

DATA = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # where `train/` and `val/` are within the root
VALIDATION = ("val", "ILSVRC2012_img_val")
TRAINING = ("train", "ILSVRC2012_img_train")
DEVKIT = "ILSVRC2012_devkit_t12"
EXPECTED = (
    "expected val/n01440764/NAME.JPEG, or ImageNet's official layout: val/NAME.JPEG with LOC_val_solution.csv or "
    f"{DEVKIT}/ in the root"
)


@DATASETS.register("imagenet", masks="none", groups=False)
def imagenet(
    root: str,
    *,
    per_class: int | None = None,
    order: Literal["first", "random"] = "first",
    train: bool = True,
    boxes: str | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """ImageNet-1k: the official validation images as the test split, the official training images, and perhaps boxes.

    Classes are those in the folder, by the names that sightline gives to ImageNet's, in the order of the logits of models.

    Args:
        root: the folder that holds `val/` (or `ILSVRC2012_img_val/`) and `train/`, or that with `ILSVRC/Data/CLS-LOC/`.
            Validation images are in folders named by wnids, or all in one folder; then LOC_val_solution.csv or
            ILSVRC2012_devkit_t12/ tells their classes.
        per_class: keep this many validation images of every class.
        order: which ones: the "first" by the file's name, or "random" ones by the seed.
        train: read the training images too, where they are there; they take a while to list.
        boxes: a folder of the official XML files, or another file of boxes as for the data set "folder"; None = no boxes.
        seed: of the random choice.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        "test", the official validation images; "train", if it is there.

    Raises:
        SightlineError: files are missing, nothing tells the classes of the images, or a class has fewer than `per_class`.
    """
    check_choice(("first", "random"), order=order)
    if per_class is not None:
        check_count(per_class=per_class)
    base = locate(root, "root")
    found = {"test": _validation(base)}
    training = _folder(base, TRAINING) if train else None
    if training is not None:
        found["train"] = _by_folder(training)
    wnids = sorted({wnid for images in found.values() for wnid in images})
    if missing := [wnid for wnid in wnids if wnid not in found["test"]]:
        raise SightlineError(
            f"root: {base} has no validation image of {len(missing)} classes, such as {missing[0]}; unpack all files"
        )
    if per_class is not None:
        found["test"] = {wnid: _chosen(images, per_class, order, seed, wnid) for wnid, images in found["test"].items()}
    records = {
        name: [Record(image, wnids.index(wnid)) for wnid in wnids for image in images.get(wnid, ())]
        for name, images in found.items()
    }
    classes = names_of_wnids(wnids)
    return Splits(
        {
            name: FileDataset(part, classes, base, skip_corrupt=skip_corrupt)
            for name, part in boxed_parts(records, boxes).items()
        }
    )


def _folder(base: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these folders in any place where the data may be."""
    return next((base / place / name for place in DATA for name in names if (base / place / name).is_dir()), None)


def _validation(base: Path) -> dict[str, list[Path]]:
    """Return the validation images of each wnid, sorted by name."""
    folder = _folder(base, VALIDATION)
    if folder is None:
        raise SightlineError(f"root: {base} has no folder {' or '.join(VALIDATION)}; {EXPECTED}")
    if any(WNID.fullmatch(place.name) for place in folder.iterdir() if place.is_dir()):
        return _by_folder(folder)
    images = list_images(folder)
    truth = _solution(base) or _devkit(base)
    if not images or not truth:
        what = "images" if not images else "file that tells the classes of the validation images"
        raise SightlineError(f"root: {base} has no {what}; {EXPECTED}")
    found: dict[str, list[Path]] = {}
    for image in images:
        if image.stem not in truth:
            raise SightlineError(f"root: the class of {image} is not known; {EXPECTED}")
        found.setdefault(truth[image.stem], []).append(image)
    return found


def _by_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the images in each folder that is named by a wnid; other folders are an error."""
    found: dict[str, list[Path]] = {}
    for place in sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")):
        if not WNID.fullmatch(place.name):
            raise SightlineError(f"root: {place} is not a folder of a class; {EXPECTED}")
        if images := list_images(place):
            found[place.name] = images
    if not found:
        raise SightlineError(f"root: {folder} holds no images; {EXPECTED}")
    return found


def _chosen(images: list[Path], count: int, order: str, seed: int, wnid: str) -> list[Path]:
    if len(images) < count:
        raise SightlineError(f"per_class is {count}; the class {wnid} has {len(images)} validation images")
    if order == "first":
        return images[:count]
    drawn = torch.randperm(len(images), generator=generator(seed, wnid, "images"))[:count]
    return [images[place] for place in sorted(drawn.tolist())]


def _solution(base: Path) -> dict[str, str]:
    """Return the wnid of each validation image by the file of the Kaggle challenge; empty without it."""
    file = base / "LOC_val_solution.csv"
    if not file.is_file():
        return {}
    rows = read_csv(file, required=("ImageId", "PredictionString"))
    return {row["ImageId"]: row["PredictionString"].split()[0] for _, row in rows if row["PredictionString"]}


def _devkit(base: Path) -> dict[str, str]:
    """Return the wnid of each validation image by the official development kit; empty without it."""
    folder = base / DEVKIT / "data"
    if not folder.is_dir():
        return {}
    from scipy.io import loadmat

    with reading(folder, RESTORE):
        synsets = loadmat(folder / "meta.mat", squeeze_me=True)["synsets"]
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        lines = (folder / "ILSVRC2012_validation_ground_truth.txt").read_text(encoding="utf-8").split()
        return {f"ILSVRC2012_val_{number:08}": wnids[int(line)] for number, line in enumerate(lines, start=1)}
