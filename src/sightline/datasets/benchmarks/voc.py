"""PASCAL VOC 2012 (Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010): its segmentation set."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sightline._core.checks import check_choice
from sightline._core.reading import RESTORE, reading
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import UnclearFileError, UnreadableFileError, locate_layout
from sightline.data.mask_files import mask_meaning, read_mask
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import MissingFileError
from sightline.formats.box_files import boxed_parts
from sightline.formats.splitting import official_splits

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@DATASETS.register("voc", masks="all", groups=False)
def voc(
    root: str,
    *,
    labels: Literal["single", "multiple"] = "single",
    val: float = 0.2,
    boxes: str | None = None,
    seed: int = 0,
    download: bool = False,
    skip_corrupt: bool = False,
) -> Splits:
    """PASCAL VOC 2012: images of 20 classes whose every pixel is labelled; those of one class, or of several.

    The classes of an image are those of its segmentation. "single" keeps the images of one class, as SO-Loss's experiments do,
    and their mask is the object; "multiple" keeps all, with a mask for each class. The test split is the official validation
    set, whose labels are public. All segmentations are read once, which takes some seconds. A segmentation that was saved in
    colors is read by PASCAL VOC's palette.

    Args:
        root: the folder `VOC2012/`, or one that holds it or torchvision's `VOCdevkit/VOC2012/`.
        labels: one class an image, or all that it shows.
        val: share (float) or count (int) of the official training images that go to "val", of every class where labels are
            "single"; 0 = no such split.
        boxes: a file of boxes as for the data set "folder", such as the folder `VOC2012/Annotations`; None = no boxes.
        seed: of the choice of validation images.
        download: fetch the 2 GB into `root` by torchvision unless they are there.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test".

    Raises:
        SightlineError: files are missing or cannot be downloaded, or a class has too few images.
    """
    check_choice(("single", "multiple"), labels=labels)
    base = _base(root, download)
    single = labels == "single"
    found = {part: _records(base, part, single, skip_corrupt) for part in ("train", "val")}
    parts = boxed_parts({part: records for part, (records, _) in found.items()}, boxes)
    meaning = mask_meaning(ignore=255) if single else _meaning_by_class()
    make = partial(
        FileDataset, classes=CLASSES, root=base, meaning=meaning, colors=class_colors(), skip_corrupt=skip_corrupt
    )
    made = official_splits(parts["train"], parts["val"], make, val, seed)
    for name, part in (("train", "train"), ("test", "val")):
        made[name].skipped += found[part][1]
    return made


def _base(root: str, download: bool) -> Path:
    if download:
        from torchvision.datasets import VOCSegmentation

        try:
            VOCSegmentation(root, year="2012", image_set="trainval", download=True)
        except (OSError, RuntimeError) as error:
            raise MissingFileError(f"root: torchvision could not fetch PASCAL VOC 2012 into {root}: {error}") from error
    layout = "PASCAL VOC 2012's layout, which download=True fetches"
    return locate_layout(root, "ImageSets/Segmentation/train.txt", ["VOC2012", "VOCdevkit/VOC2012"], layout)


def _records(base: Path, part: str, single: bool, skip_corrupt: bool) -> tuple[list[Record], list[str]]:
    """Return the images of an official list with the classes of their segmentations, and unreadable images."""
    file = base / "ImageSets/Segmentation" / f"{part}.txt"
    with reading(file, RESTORE):
        names = file.read_text(encoding="utf-8").split()
    masks = [base / "SegmentationClass" / f"{name}.png" for name in names]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(partial(_classes_of, skip_corrupt=skip_corrupt), masks))
    records, skipped = [], []
    for name, mask, present in zip(names, masks, found):
        image = base / "JPEGImages" / f"{name}.jpg"
        if present is None:
            skipped.append(str(image))
        elif len(present) == 1 or not single:
            records.append(Record(image, present[0] if single else present, mask))
    return records, skipped


def _classes_of(mask: Path, skip_corrupt: bool) -> tuple[int, ...] | None:
    """Return the classes that a segmentation shows; None if it cannot be read and this is allowed.

    Raises:
        SightlineError: the segmentation has a value or a color of no class.
    """
    try:
        shown = read_mask(mask, torch.arange(256, dtype=torch.uint8), class_colors())
    except UnreadableFileError:
        if skip_corrupt:
            return None
        raise
    values = shown.flatten().bincount().nonzero()[:, 0].tolist()
    for value in values:
        if value != 255 and value > len(CLASSES):
            raise UnclearFileError(
                f"the mask {mask} has the value {value}; expected 0 to {len(CLASSES)}, or 255 for pixels to ignore. A mask "
                "that was converted to gray has lost its classes"
            )
    return tuple(value - 1 for value in values if 1 <= value <= len(CLASSES))


def class_colors() -> Tensor:
    """Return the color (256, 3) uint8 of each value of a segmentation, as PASCAL VOC's development kit defines it.

    Bit 3 k + c of the value is bit 7 - k of the channel c.
    """
    values = torch.arange(256)[:, None]
    channels = torch.arange(3)
    return sum(((values >> (3 * k + channels)) & 1) << (7 - k) for k in range(3)).to(torch.uint8)  # type: ignore[union-attr]


def _meaning_by_class() -> Tensor:
    """(20, 256): in the mask of a class, its own value is the object, 255 is to be ignored, and the others are background."""
    meaning = torch.zeros(len(CLASSES), 256, dtype=torch.uint8)
    meaning[range(len(CLASSES)), range(1, len(CLASSES) + 1)] = 1
    meaning[:, 255] = 255
    return meaning
