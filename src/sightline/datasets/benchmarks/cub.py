"""CUB-200-2011 (Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from sightline._core.checks import check_fraction
from sightline._core.reading import RESTORE, reading
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate_layout
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError, unknown_name
from sightline.formats.splitting import official_splits


@DATASETS.register("cub", masks="all", groups=False)
def cub(
    root: str,
    *,
    species: Sequence[str] | None = None,
    val: float = 0.1,
    per_class: int | None = None,
    masks: bool = True,
    agreement: float = 0.5,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """CUB-200-2011: birds of 200 species with segmentations and boxes, in the official layout and split.

    The segmentations come in their own archive, unpacked next to or into `CUB_200_2011/`. Their grey values say how many
    of the annotators saw the bird at a pixel.

    Args:
        root: the folder `CUB_200_2011/` with its `images.txt`, or that which holds it.
        species: keep these alone, such as ["Laysan Albatross", "Indigo Bunting"]; None = all in the folder.
        val: share (float) or count (int) of every species' official training images that go to "val"; 0 = no such split.
        per_class: keep this many training images of every species; a larger number contains the smaller's.
        masks: read the segmentations; otherwise no image has a mask.
        agreement: the share of the annotators that a pixel of the bird needs more than, in [0, 1).
        seed: of the choice of validation and training images.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test", the last one official; every image has its box.

    Raises:
        SightlineError: files are missing, a species is unknown, or fewer than `per_class` images remain.
    """
    check_fraction("[0, 1)", agreement=agreement)
    layout = "CUB-200-2011's official layout, available from https://www.vision.caltech.edu/datasets/cub_200_2011"
    base = locate_layout(root, "images.txt", ["CUB_200_2011"], layout)
    drawn = _segmentations(base) if masks else None
    meaning = (torch.arange(256) > 255 * agreement).to(torch.uint8)

    names = {number: name.partition(".")[2].replace("_", " ") for number, name in _read(base, "classes").items()}
    for name in species or ():
        if name not in names.values():
            raise unknown_name("species", name, names.values())
    kept = [number for number in names if species is None or names[number] in species]
    labels, in_train = _read(base, "image_class_labels"), _read(base, "train_test_split")
    boxes = _read(base, "bounding_boxes")

    parts: dict[str, list[Record]] = {"1": [], "0": []}
    for image, file in _read(base, "images").items():
        if labels[image] in kept:
            mask = None if drawn is None else (drawn / file).with_suffix(".png")
            parts[in_train[image]].append(
                Record(base / "images" / file, kept.index(labels[image]), mask, boxes=(_box(boxes[image]),))
            )
    classes = [names[number] for number in kept]
    make = partial(FileDataset, classes=classes, root=base, meaning=meaning, skip_corrupt=skip_corrupt)
    return official_splits(parts["1"], parts["0"], make, val, seed, per_class)


def _segmentations(base: Path) -> Path:
    for place in (base / "segmentations", base.parent / "segmentations"):
        if place.is_dir():
            return place
    raise SightlineError(
        f"masks: there is no folder segmentations in {base} or next to it. Download it, which is a separate archive, or "
        "pass masks=False"
    )


def _read(base: Path, name: str) -> dict[str, str]:
    """Return the text of a list for each number at the start of its lines."""
    with reading(base / f"{name}.txt", RESTORE):
        lines = (base / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        pairs = (line.split(maxsplit=1) for line in lines if line.strip())
        return {number: said.strip() for number, said in pairs}


def _box(said: str) -> tuple[float, float, float, float]:
    """Return the edges of a box given as x, y, width, height."""
    x, y, width, height = map(float, said.split())
    return x, y, x + width, y + height
