"""Oxford-IIIT Pet (Parkhi, Vedaldi, Zisserman, Jawahar, "Cats and Dogs", CVPR 2012) in its official layout."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from sightline._core.checks import check_choice
from sightline._core.reading import RESTORE, reading
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate_layout
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import MissingFileError, unknown_name
from sightline.formats.box_files import boxed_parts
from sightline.formats.splitting import official_splits


@DATASETS.register("pets", masks="all", groups=False)
def pets(
    root: str,
    *,
    breeds: Sequence[str] | None = None,
    val: float = 0.2,
    per_class: int | None = None,
    border: Literal["object", "ignore"] = "object",
    boxes: str | None = None,
    seed: int = 0,
    download: bool = False,
    skip_corrupt: bool = False,
) -> Splits:
    """Oxford-IIIT Pet: cats and dogs of 37 breeds with trimaps, or of as many as the folder holds.

    Classes are the breeds in the official order, renumbered from 0 and named by the files. The test split is the
    official one; validation is drawn from the official trainval, the same share of every breed.

    Args:
        root: the folder that holds `images/` and `annotations/`, or that in which torchvision put `oxford-iiit-pet/`.
        breeds: keep these breeds alone, such as ["Abyssinian", "american bulldog"]; None = all in the folder.
        val: share (float) or count (int) of every breed's trainval images that go to "val"; 0 = no such split.
        per_class: keep this many training images of every breed; a larger number contains the smaller's.
        border: what the trimap's border, a rim a few pixels wide, counts as: the pet's, or to be ignored.
        boxes: a file of boxes, as for the data set "folder"; None = no boxes.
        seed: of the choice of validation and training images.
        download: fetch the 0.8 GB into `root` by torchvision unless they are there.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test".

    Raises:
        SightlineError: files are missing, a breed is unknown, or fewer than `per_class` images remain.
    """
    check_choice(("object", "ignore"), border=border)
    base = _base(root, download)
    meaning = torch.full((256,), 255, dtype=torch.uint8)  # trimap: 1 = pet, 2 = background, 3 = border
    meaning[1], meaning[2], meaning[3] = 1, 0, 1 if border == "object" else 255

    lists = {part: _read_list(base / "annotations" / f"{part}.txt") for part in ("trainval", "test")}
    names = {
        number: file.rpartition("_")[0].replace("_", " ") for entries in lists.values() for file, number in entries
    }
    for breed in breeds or ():
        if breed not in names.values():
            raise unknown_name("breed", breed, names.values())
    kept = [number for number in sorted(names) if breeds is None or names[number] in breeds]

    def records(part: str) -> list[Record]:
        return [
            Record(base / "images" / f"{file}.jpg", kept.index(number), base / "annotations/trimaps" / f"{file}.png")
            for file, number in lists[part]
            if number in kept
        ]

    parts = boxed_parts({part: records(part) for part in lists}, boxes)
    classes = [names[number] for number in kept]
    make = partial(FileDataset, classes=classes, root=base, meaning=meaning, skip_corrupt=skip_corrupt)
    return official_splits(parts["trainval"], parts["test"], make, val, seed, per_class)


def _base(root: str, download: bool) -> Path:
    if download:
        from torchvision.datasets import OxfordIIITPet

        try:
            OxfordIIITPet(root, target_types="segmentation", download=True)
        except (OSError, RuntimeError) as error:
            raise MissingFileError(f"root: torchvision could not fetch Oxford-IIIT Pet into {root}: {error}") from error
    return locate_layout(root, "annotations/trainval.txt", ["oxford-iiit-pet"], "Oxford-IIIT Pet's official layout")


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Return the (file stem, class number from 1) of each line `Abyssinian_100 1 1 1`."""
    with reading(path, RESTORE):
        lines = path.read_text(encoding="utf-8").splitlines()
        entries = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        return [(entry[0], int(entry[1])) for entry in entries]
