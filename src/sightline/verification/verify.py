"""Whether a data set is whole: every file is read once, and official sets are counted."""

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from sightline._core.progress import bar
from sightline.data.copies import find_copies
from sightline.data.dataset import ImageDataset
from sightline.data.file_dataset import FileDataset, files_unchecked
from sightline.data.files import UnclearFileError, UnreadableFileError
from sightline.data.image_listing import scan_images
from sightline.data.leaks import content_keys, find_leaks
from sightline.data.official import OFFICIAL
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.verification.near_copies import Sketch, find_near_copies, sketch_image

Finding = Literal["missing", "corrupt", "unclear", "mismatched", "unlabeled", "without mask", "empty mask"]
FINDINGS: tuple[Finding, ...] = get_args(Finding)

NARROWING = frozenset({"breeds", "species", "classes", "per_class", "train", "test"})
"""Options with which a set has fewer images than the official one, or others."""


@dataclass(frozen=True)
class DatasetReport:
    """What was found in a data set.

    Attributes:
        images: how many each split holds.
        found: for each split and kind of finding, one line per image.
        unlisted: images next to the listed ones that belong to no split.
        counts: for "train" (with "val") and "test" the number of images and the official one; empty where there is none.
        needs_masks: whether every image should have a mask.
        leaks: images that are in several splits or have several labels, a line each.
        near_copies: images that are nearly identical to one in another split, a line each; None = imagehash is not installed.
        classes: how many images of each class each split holds.
        official: whether these are the images of a public data set, whose leaks are not the user's.
    """

    images: dict[str, int]
    found: dict[str, dict[Finding, list[str]]]
    unlisted: list[str]
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    needs_masks: bool = False
    leaks: list[str] = field(default_factory=list)
    near_copies: list[str] | None = None
    official: bool = False
    classes: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each.

        Not wrong are images in no split, images without a mask where they may be, and leaks of a public data set.
        """
        allowed = () if self.needs_masks else ("without mask", "empty mask")
        lines = [
            f"{split}, {kind}: {line}"
            for split, kinds in self.found.items()
            for kind, some in kinds.items()
            if kind not in allowed
            for line in some
        ]
        if not self.official:
            lines += self.leaks + (self.near_copies or [])
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
    examined = {split: _examine(images, split, progress) for split, images in splits.items()}
    return DatasetReport(
        {split: len(images) for split, images in splits.items()},
        {split: findings for split, (findings, _) in examined.items()},
        _unlisted(splits),
        _counts(name, options, splits),
        needs_masks=DATASETS[name].capabilities.get("masks") == "all" and options.get("masks") is not False,
        leaks=_leaks(splits),
        near_copies=_near_copies(splits, {split: sketches for split, (_, sketches) in examined.items()}),
        official=_is_public(name) and not {"train", "test"} & options.keys(),
        classes={split: facts["classes"] for split, facts in splits.describe().items()},
    )


def _is_public(name: str) -> bool:
    return name in OFFICIAL or DATASETS[name].factory.__module__.startswith("sightline.datasets.benchmarks")


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


def _examine(dataset: ImageDataset, name: str, progress: bool) -> tuple[dict[Finding, list[str]], dict[int, Sketch]]:
    """Read every image; return what is to be said about some, and sketches of those on disk, if imagehash is installed."""
    found: dict[Finding, list[str]] = defaultdict(list)
    found["corrupt"] += dataset.skipped
    sketches = {}
    draws = isinstance(dataset, FileDataset) and find_spec("imagehash") is not None
    with bar(progress, f"reading {name}", len(dataset)) as advance, ThreadPoolExecutor() as pool:
        for index, (finding, sketch) in enumerate(pool.map(partial(_look, dataset, draws), range(len(dataset)))):
            advance(1)
            if finding is not None:
                kind, line = finding
                found[kind].append(line)
            if sketch is not None:
                sketches[index] = sketch
    return dict(found), sketches


def _look(dataset: ImageDataset, draws: bool, index: int) -> tuple[tuple[Finding, str] | None, Sketch | None]:
    """Return the most important message about an image, and its sketch."""
    if isinstance(dataset, FileDataset):
        record = dataset.records[index]
        for file in record.files:
            if not file.is_file():
                return ("missing", str(file)), None
    try:
        sample = dataset.load(index)
    except UnreadableFileError as error:
        return ("corrupt", str(error.__cause__ or error)), None
    except UnclearFileError as error:
        return ("unclear", str(error)), None
    except SightlineError as error:
        return ("mismatched", str(error)), None
    sketch = sketch_image(sample.image.as_subclass(Tensor)) if draws else None
    finding: tuple[Finding, str] | None = None
    if dataset.multi_label and not dataset.labels[index].any():
        finding = "unlabeled", sample.path
    elif sample.mask is None:
        finding = "without mask", sample.path
    elif not (sample.mask == 1).any():
        finding = "empty mask", sample.path
    return finding, sketch


def _leaks(splits: Splits) -> list[str]:
    records = [record for images in splits.values() if isinstance(images, FileDataset) for record in images.records]
    leaks = find_leaks(splits, content_keys(records))
    named = {"contradicting labels": leaks.labels, "one file": leaks.files, "equal files": leaks.copies}
    return [f"{kind}: {line}" for kind, lines in named.items() for line in lines]


def _near_copies(splits: Splits, sketches: Mapping[str, Mapping[int, Sketch]]) -> list[str] | None:
    """Pairs of nearly identical images in different splits that are not files of equal content."""
    if find_spec("imagehash") is None:
        return None
    equal = find_copies(Path(splits[split].path(index)) for split, some in sketches.items() for index in some)
    lines = []
    for first, second in combinations(splits, 2):
        places = [[*sketches[split]] for split in (first, second)]
        for one, other in find_near_copies(*([*sketches[split].values()] for split in (first, second))):
            paths = [Path(splits[first].path(places[0][one])), Path(splits[second].path(places[1][other]))]
            if len({equal.get(path, path) for path in paths}) == 2:
                lines.append(f"nearly identical: {paths[0]} and {paths[1]}: {first} and {second}")
    return lines


def _unlisted(splits: Splits) -> list[str]:
    """Return the images in the folder of the listed ones, at any depth, that are neither images nor masks of a split."""
    records = [record for images in splits.values() if isinstance(images, FileDataset) for record in images.records]
    if not records:
        return []
    folder = Path(os.path.commonpath([record.path.parent for record in records]))
    listed = {file for record in records for file in record.files}
    listing = scan_images(folder)
    files = {*listing.images, *(file for files in listing.left_out.values() for file in files)}
    return [str(file) for file in sorted(files) if file not in listed]


def _counts(name: str, options: Mapping[str, Any], splits: Splits) -> dict[str, tuple[int, int]]:
    """Return the numbers of images next to the official ones, where the options ask for the whole set."""
    official = OFFICIAL.get(f"{name} labels={options.get('labels')}", OFFICIAL.get(name))
    if official is None or official.train is None or official.test is None or NARROWING & options.keys():
        return {}
    train = sum(len(images) for split, images in splits.items() if split != "test")
    return {"train": (train, official.train), "test": (len(splits["test"]), official.test)}
