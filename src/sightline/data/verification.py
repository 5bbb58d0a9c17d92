"""Whether a data set is whole: every file is read once, and official sets are counted."""

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from sightline._core.progress import bar
from sightline.data.dataset import ImageDataset
from sightline.data.file_dataset import FileDataset, files_unchecked
from sightline.data.files import UnclearFileError, UnreadableFileError
from sightline.data.image_listing import scan_images
from sightline.data.official import OFFICIAL
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError

Finding = Literal["missing", "corrupt", "unclear", "mismatched", "unlabeled", "without mask", "empty mask"]
FINDINGS: tuple[Finding, ...] = get_args(Finding)

NARROWING = frozenset({"breeds", "species", "classes", "per_class", "train", "test"})
"""Options with which a set has fewer images than the official one, or others."""


@dataclass(frozen=True)
class DatasetReport:
    """What was found in a data set.

    Attributes:
        images: how many each split holds.
        found: for each split and kind of finding, one line an image.
        unlisted: pictures beside the listed ones that belong to no split.
        counts: for "train" (with "val") and "test" the number of images and the official one; empty where there is none.
        needs_masks: whether every image should have a mask.
    """

    images: dict[str, int]
    found: dict[str, dict[Finding, list[str]]]
    unlisted: list[str]
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    needs_masks: bool = False

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each; pictures in no split, and images without a mask where they may be, are not."""
        allowed = () if self.needs_masks else ("without mask", "empty mask")
        lines = [
            f"{split}, {kind}: {line}"
            for split, kinds in self.found.items()
            for kind, some in kinds.items()
            if kind not in allowed
            for line in some
        ]
        return lines + [
            f"{split}: {count} images, and officially {official}"
            for split, (count, official) in self.counts.items()
            if count != official
        ]


def verify_dataset(name: str, options: Mapping[str, Any] | None = None, *, progress: bool = False) -> DatasetReport:
    """Read every file of a data set once.

    Args:
        name: of the data set.
        options: of it.
        progress: show a bar with the time that remains.

    Raises:
        SightlineError: the data set cannot be made at all: its lists are missing, or an option is wrong.
    """
    options = dict(options or {})
    with files_unchecked():
        splits = DATASETS.create(name, **options)
    found = {split: _examine(images, split, progress) for split, images in splits.items()}
    return DatasetReport(
        {split: len(images) for split, images in splits.items()},
        found,
        _unlisted(splits),
        _counts(name, options, splits),
        needs_masks=DATASETS[name].capabilities.get("masks") == "all" and options.get("masks") is not False,
    )


def download_dataset(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Fetch a data set by torchvision, unless it is there.

    Raises:
        SightlineError: torchvision cannot fetch it, or cannot reach it.
    """
    if not DATASETS.can_fetch(name):
        known = OFFICIAL.get(name)
        where = (
            "it is made of your own files, or comes with sightline" if known is None else f"get it from {known.source}"
        )
        raise SightlineError(f"{name!r} cannot be fetched by torchvision; {where}")
    DATASETS.create(name, **{**(options or {}), "download": True})


def _examine(dataset: ImageDataset, name: str, progress: bool) -> dict[Finding, list[str]]:
    found: dict[Finding, list[str]] = defaultdict(list)
    found["corrupt"] += dataset.skipped
    with bar(progress, f"reading {name}", len(dataset)) as advance, ThreadPoolExecutor() as pool:
        for finding in pool.map(partial(_look, dataset), range(len(dataset))):
            advance(1)
            if finding is not None:
                kind, line = finding
                found[kind].append(line)
    return dict(found)


def _look(dataset: ImageDataset, index: int) -> tuple[Finding, str] | None:
    """What is to be said of an image: the worst, where there are several."""
    if isinstance(dataset, FileDataset):
        record = dataset.records[index]
        for file in (record.path, record.mask):
            if isinstance(file, Path) and not file.is_file():
                return "missing", str(file)
    try:
        sample = dataset.load(index)
    except UnreadableFileError as error:
        return "corrupt", str(error)
    except UnclearFileError as error:
        return "unclear", str(error)
    except SightlineError as error:
        return "mismatched", str(error)
    if dataset.multi_label and not dataset.labels[index].any():
        return "unlabeled", sample.path
    if sample.mask is None:
        return "without mask", sample.path
    return None if (sample.mask == 1).any() else ("empty mask", sample.path)


def _unlisted(splits: Splits) -> list[str]:
    """The pictures in the folder of the listed ones, at any depth, that are neither images nor masks of a split."""
    records = [record for images in splits.values() if isinstance(images, FileDataset) for record in images.records]
    if not records:
        return []
    folder = Path(os.path.commonpath([record.path.parent for record in records]))
    listed = {file for record in records for file in (record.path, record.mask) if isinstance(file, Path)}
    listing = scan_images(folder)
    files = {*listing.images, *(file for files in listing.left_out.values() for file in files)}
    return [str(file) for file in sorted(files) if file not in listed]


def _counts(name: str, options: Mapping[str, Any], splits: Splits) -> dict[str, tuple[int, int]]:
    """The numbers of images beside the official ones, where the options ask for the whole set."""
    official = OFFICIAL.get(f"{name} labels={options.get('labels')}", OFFICIAL.get(name))
    if official is None or NARROWING & options.keys():
        return {}
    train = sum(len(images) for split, images in splits.items() if split != "test")
    return {"train": (train, official.train), "test": (len(splits["test"]), official.test)}
