"""Images that are in several splits, or have several labels."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sightline.data.copies import find_copies
from sightline.data.dataset import ImageDataset
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import UnreadableFileError
from sightline.data.image_files import read_image
from sightline.errors import SightlineError

_SHOWN = 3


@dataclass(frozen=True)
class Leaks:
    """What copies of images have in common, one line for each pair.

    Attributes:
        labels: copies with different labels.
        files: one file that is in two splits.
        copies: files of equal content that are in two splits.
    """

    labels: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)


def content_keys(records: Sequence[Record]) -> dict[Path, Path]:
    """Return, for each image with a copy, the path that stands for their content; see `find_copies`.

    An image that makes up more than half of a class is a placeholder, as failed downloads leave them. It counts as many images,
    with a warning, because otherwise the class could not be divided.
    """
    keys = find_copies(record.path for record in records)
    counts: dict[int, Counter[Path]] = defaultdict(Counter)
    for record in records:
        counts[record.label if isinstance(record.label, int) else -1][keys.get(record.path, record.path)] += 1
    placeholders: Counter[Path] = Counter()
    for count in counts.values():
        key, number = count.most_common(1)[0]
        if key in keys and 2 * number > count.total():
            placeholders[key] += number
    if placeholders:
        warnings.warn(
            f"{placeholders.total()} images have the content of {next(iter(placeholders))} or another that makes up more "
            "than half of a class. They are divided like different images, so copies are in several splits",
            stacklevel=2,
        )
    return {path: key for path, key in keys.items() if key not in placeholders}


def find_leaks(splits: Mapping[str, ImageDataset], keys: Mapping[Path, Path]) -> Leaks:
    """Find images of equal content that are in two splits or have two labels.

    Args:
        splits: the splits; those that are not of files are not looked at.
        keys: see `content_keys`; a path that it lacks stands for itself.
    """
    leaks = Leaks()
    seen: dict[Path, tuple[str, Record]] = {}
    for split, images in splits.items():
        for record in images.records if isinstance(images, FileDataset) else ():
            before, first = seen.setdefault(keys.get(record.path, record.path), (split, record))
            both = str(first.path) if first.path == record.path else f"{first.path} and {record.path}"
            if first.label != record.label and (first.path == record.path or _is_readable(record.path)):
                names = (_label(images.classes, each.label) for each in (first, record))
                leaks.labels.append(f"{both}: {' and '.join(names)}")
            if before != split:
                same = os.path.realpath(first.path) == os.path.realpath(record.path)
                (leaks.files if same else leaks.copies).append(f"{both}: {before} and {split}")
    return leaks


def refuse_leaks(splits: Mapping[str, ImageDataset], keys: Mapping[Path, Path]) -> None:
    """Reject a file in two splits and an image with two labels; warn of files of equal content in two splits.

    Raises:
        SightlineError: names the first files and their splits or labels.
    """
    leaks = find_leaks(splits, keys)
    if leaks.labels:
        raise SightlineError(
            f"{len(leaks.labels)} images have contradicting labels: {_first(leaks.labels)}. Keep one, or correct its label"
        )
    if leaks.files:
        raise SightlineError(
            f"{len(leaks.files)} files are in two splits: {_first(leaks.files)}. Keep each file in one"
        )
    if leaks.copies:
        warnings.warn(
            f"{len(leaks.copies)} files have the content of a file in another split: {_first(leaks.copies)}. "
            "`sightline data check` lists them all",
            stacklevel=2,
        )


def _is_readable(path: Path) -> bool:
    """Return whether a file is an image; failed downloads leave equal files that are none."""
    try:
        read_image(path)
    except UnreadableFileError:
        return False
    return True


def _label(classes: Sequence[str], label: int | tuple[int, ...]) -> str:
    return repr(classes[label]) if isinstance(label, int) else repr([classes[each] for each in label])


def _first(lines: Sequence[str]) -> str:
    return "; ".join(lines[:_SHOWN]) + (" ..." if len(lines) > _SHOWN else "")
