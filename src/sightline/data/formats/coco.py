"""COCO (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014): its instances, and files in its format."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sightline._core.optional import requires_extra
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate
from sightline.data.formats.splitting import official_splits
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError, unknown_name


@DATASETS.register("coco", masks="all", groups=False)
def coco(
    root: str,
    *,
    train: str = "annotations/instances_train2017.json",
    test: str = "annotations/instances_val2017.json",
    train_images: str = "train2017",
    test_images: str = "val2017",
    labels: Literal["dominant", "multiple"] = "dominant",
    classes: Sequence[str] | None = None,
    val: float = 0.1,
    per_class: int | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """COCO's instances, or your own images annotated in its format: polygons and run lengths become masks.

    "dominant" gives an image the class that covers most of it, by the annotations' areas, and the mask of that class's
    instances; "multiple" gives it all its classes, with a mask for each. A mask for each of K classes takes K bytes a pixel, so
    choose `classes` where memory is short. Images without an instance of these classes are left out.

    Args:
        root: the folder that the other paths start from.
        train: the annotations to train on.
        test: those to test on.
        train_images: the folder of the training images.
        test_images: that of the test images.
        labels: one class an image, or all that it shows.
        classes: keep these categories alone, in this order; None = all of the training file, by their number.
        val: share (float) or count (int) of the training images that go to "val", of every class where labels are "dominant";
            0 = no such split.
        per_class: keep this many training images of every class, where labels are "dominant".
        seed: of the choice of validation and training images.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test"; every image has the boxes of the instances that its mask shows.

    Raises:
        SightlineError: files are missing or not in COCO's format, a class is unknown, or a class has too few images.
    """
    if labels not in ("dominant", "multiple"):
        raise unknown_name("labels", labels, ("dominant", "multiple"))
    single = labels == "dominant"
    if per_class is not None and not single:
        raise SightlineError(f"per_class is {per_class}; images with several labels are not of one class")
    base = locate(root, "root")
    files = {"train": _read(base / train), "test": _read(base / test)}
    numbers = _categories(files["train"], classes)
    folders = {"train": train_images, "test": test_images}
    parts = {part: _records(file, base / folders[part], numbers, single) for part, file in files.items()}
    make = partial(FileDataset, classes=list(numbers), root=base, skip_corrupt=skip_corrupt)
    return official_splits(parts["train"], parts["test"], make, val, seed, per_class)


@dataclass(frozen=True, repr=False)
class Instances:
    """The masks of an image's instances, as COCO writes them.

    Args:
        of_class: for each mask of the image, its instances' segmentations: lists of polygons x1, y1, x2, y2, ... in pixels, or
            run lengths as a dict.
        per_class: whether there is a mask for each class; otherwise there is one.
        told: what distinguishes them, for the fingerprint.
    """

    of_class: tuple[tuple[Any, ...], ...] = field(compare=False)
    per_class: bool
    told: str

    def __repr__(self) -> str:
        return self.told

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) or (K, height, width) uint8, 1 where an instance is.

        Raises:
            SightlineError: a segmentation is of another size than the image, or pycocotools is not installed.
        """
        masks = torch.stack([self._draw(some, height, width) for some in self.of_class])
        return masks if self.per_class else masks[0]

    def _draw(self, segmentations: tuple[Any, ...], height: int, width: int) -> Tensor:
        with requires_extra("coco", "a mask of a COCO file"):
            from pycocotools import mask as coco_mask

        encoded = []
        for given in segmentations:
            if isinstance(given, dict):
                if list(given["size"]) != [height, width]:
                    raise SightlineError(
                        f"{self.told}: a mask of {given['size']} rows and columns; {[height, width]} expected"
                    )
                packed = isinstance(given["counts"], str | bytes)
                encoded.append(given if packed else coco_mask.frPyObjects(given, height, width))
            else:
                encoded += coco_mask.frPyObjects(given, height, width)
        if not encoded:
            return torch.zeros(height, width, dtype=torch.uint8)
        return torch.from_numpy(coco_mask.decode(coco_mask.merge(encoded)))


@dataclass(frozen=True)
class _File:
    path: Path
    content: dict[str, Any]
    digest: str


def _read(path: Path) -> _File:
    try:
        written = path.read_bytes()
        content = json.loads(written)
    except (OSError, ValueError) as error:
        raise SightlineError(f"cannot read {path}: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise SightlineError(f"{path} is no COCO annotation file: it has no list {key!r}")
    return _File(path, content, hashlib.blake2b(written, digest_size=8).hexdigest())


def _categories(file: _File, wanted: Sequence[str] | None) -> dict[str, int]:
    """The numbers of the categories by name, in the order of the classes."""
    known = {str(c["name"]): c["id"] for c in sorted(file.content["categories"], key=lambda c: c["id"])}
    for name in wanted or ():
        if name not in known:
            raise unknown_name("class", name, known)
    return known if wanted is None else {name: known[name] for name in wanted}


def _records(file: _File, folder: Path, numbers: dict[str, int], single: bool) -> list[Record]:
    """The images with an instance of these categories."""
    labels = {number: label for label, number in enumerate(numbers.values())}
    try:
        instances: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for found in file.content["annotations"]:
            if found["category_id"] in labels:
                instances[found["image_id"]].append(found)
        return [
            _record(file, folder / image["file_name"], instances[image["id"]], labels, single)
            for image in file.content["images"]
            if image["id"] in instances
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise SightlineError(f"{file.path} is no COCO annotation file: {type(error).__name__} {error}") from error


def _record(file: _File, path: Path, found: list[dict[str, Any]], labels: dict[int, int], single: bool) -> Record:
    by_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in found:
        by_class[labels[each["category_id"]]].append(each)
    dominant = max(sorted(by_class), key=lambda label: sum(each["area"] for each in by_class[label]))
    shown = [dominant] if single else list(range(len(labels)))
    told = f"instances {[each['id'] for each in found]} of {file.digest}"
    of_class = tuple(tuple(each["segmentation"] for each in by_class.get(label, ())) for label in shown)
    boxes = tuple(_box(each["bbox"]) for label in shown for each in by_class.get(label, ()))
    label = dominant if single else tuple(sorted(by_class))
    return Record(path, label, Instances(of_class, not single, told), boxes=boxes)


def _box(edges: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, edges)
    return x, y, x + width, y + height
