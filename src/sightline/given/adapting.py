"""`as_dataset`: the one place that turns any labelled data into a dataset."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sightline.data import DATASETS
from sightline.data.dataset import ImageDataset
from sightline.data.file_dataset import FileDataset, Record, files_unchecked
from sightline.data.files import UnreadableFileError, locate
from sightline.data.splits import Splits
from sightline.datasets.derived.joined import whole_folder
from sightline.errors import SightlineError
from sightline.given.dataset import GivenDataset, find_file, read
from sightline.given.items import Item, is_path
from sightline.given.labels import as_labels
from sightline.given.pixels import Normalization
from sightline.given.readable import report_unreadable
from sightline.given.sources import Items, find_items


def as_dataset(
    data: Any, *, classes: Sequence[str] | None = None, normalization: Normalization | None = None, **options: Any
) -> ImageDataset:
    """Return labelled data in any form as a dataset.

    Transforms of `torchvision.datasets.ImageFolder` are left out. Other data is taken as its items are. Items that cannot be
    read are left out, and a warning names them.

    Args:
        data: one of

            - an `ImageDataset` or `Splits`;
            - a folder of images in class folders, or a CSV file with the columns path and label;
            - `torchvision.datasets.ImageFolder`, or another dataset of (image, label) or of mappings with an image and a label;
            - a loader of batches of these;
            - a dataset of Hugging Face;
            - a table of pandas or polars with a column of paths and one of labels;
            - a list of (image, label) or of mappings, or images (N, ...) with labels (N,).

            An image is a path, a PIL image, an array or a tensor. A mapping may have a mask and a region to avoid (keys mask
            and avoid), not 0 = object or to avoid.
        classes: the names of the classes that numbers stand for, where the data does not name them.
        normalization: that of the model; it is taken back where float images went through it.
        options: of the reader of a folder or a CSV file, such as `masks`.

    Raises:
        SightlineError: the data has another form, has no labels, or none of its images can be read.
    """
    if options and not is_path(data):
        raise SightlineError(
            f"{next(iter(options))} is a file or folder and data is a {type(data).__name__}; give masks by the images' paths "
            "instead"
        )
    if isinstance(data, ImageDataset):
        return data
    if isinstance(data, Splits):
        return whole_folder(data)
    if is_path(data):
        return _open(locate(Path(data), "data"), options)
    items = find_items(data, normalization)
    if not len(items):
        raise SightlineError("data is empty; expected at least one image with a label")
    places, kept = _scan(items)
    labels, known = as_labels([item.label for item in kept], items.classes, classes)
    if all(is_path(item.image) and _is_file(item.mask) and _is_file(item.avoid) for item in kept):
        records = [
            Record(
                find_file(item.image),
                label,
                None if item.mask is None else find_file(item.mask),
                avoid=None if item.avoid is None else find_file(item.avoid),
            )
            for item, label in zip(kept, labels)
        ]
        with files_unchecked():
            return FileDataset(records, known, Path(os.path.commonpath([r.path.absolute().parent for r in records])))
    return GivenDataset(items, places, kept, labels, known, normalization)


def _open(path: Path, options: Mapping[str, Any]) -> ImageDataset:
    """All images of a folder or a CSV file."""
    if path.is_dir():
        return whole_folder(DATASETS.create("folder", root=str(path), val=0, test=0, **options))
    if path.suffix.lower() != ".csv":
        raise SightlineError(f"data is the file {path}; expected a folder with class folders, or a CSV file")
    if options:
        raise SightlineError(f"{next(iter(options))} was given with {path}; name masks in its column mask or avoid")
    with files_unchecked():
        return whole_folder(DATASETS.create("csv", path=str(path), val=0, test=0))


def _scan(items: Items) -> tuple[list[int], list[Item]]:
    """Return the positions of readable items, and these items, with True instead of an image or mask that is not a path."""
    if items.labels is not None:
        return list(range(len(items))), [Item(None, label) for label in items.labels]
    places, kept, unreadable, reason = [], [], [], ""
    for place in range(len(items)):
        try:
            item = read(items, place)
        except UnreadableFileError as error:
            unreadable.append(f"item {place}")
            reason = reason or str(error)
            continue
        places.append(place)
        image, mask, avoid = (
            each if each is None or is_path(each) else True for each in (item.image, item.mask, item.avoid)
        )
        kept.append(replace(item, image=image, mask=mask, avoid=avoid))
    if unreadable:
        report_unreadable(unreadable, reason, len(items))
    return places, kept


def _is_file(region: Any) -> bool:
    return region is None or is_path(region)
