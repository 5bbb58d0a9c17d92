"""Masks that were found for the training images of a dataset, in addition to or instead of the masks that it has."""

from collections.abc import Mapping
from dataclasses import replace
from os.path import relpath
from pathlib import Path, PurePath
from typing import Any

import torch
from torchvision import tv_tensors

from sightline._core.progress_log import read_progress
from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.data.file_dataset import FileDataset
from sightline.data.files import UnclearFileError, UnreadableFileError, locate
from sightline.data.mask_files import mask_meaning, read_mask
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError


class FoundMasks(Derived):
    """A data set with the masks of a folder that `sightline masks` wrote for it. None of its own masks is ever seen.

    Args:
        dataset: the images.
        folder: the folder. An image without a file in it has no mask.

    Raises:
        SightlineError: the folder does not exist, is of another data set, not finished, or holds a mask of another size.
    """

    def __init__(self, dataset: ImageDataset, folder: str | Path) -> None:
        place = locate(folder, "masks")
        self._mask_paths = mask_files(dataset, place)
        found = torch.tensor([file.is_file() for file in self._mask_paths])
        super().__init__(dataset, ((place / "journal").read_text(encoding="utf-8"),), found)

    def files(self, index: int) -> list[Path]:
        """Return the files of the image, and its mask."""
        return [*self.dataset.files(index), *([self._mask_paths[index]] if self.has_mask[index] else [])]

    def load(self, index: int) -> Sample:
        """Load the image with the mask that was found."""
        sample = self.dataset[index]
        if not self.has_mask[index]:
            return replace(sample, mask=None)
        try:
            mask = read_mask(self._mask_paths[index], mask_meaning())
        except (UnreadableFileError, UnclearFileError) as error:
            raise SightlineError(f"masks: {error}") from error
        if mask.shape != sample.image.shape[-2:]:
            raise SightlineError(
                f"masks: {self._mask_paths[index]} is {tuple(mask.shape)}; {sample.path} is {tuple(sample.image.shape[-2:])}"
            )
        return replace(sample, mask=tv_tensors.Mask(mask))


def mask_files(dataset: ImageDataset, folder: str | Path) -> list[Path]:
    """Return the mask file of each image of a dataset in a folder that `write_masks` finished; None where it made no mask.

    Raises:
        SightlineError: the folder is of something else, or its masks are not all made yet.
    """
    journal = Path(folder, "journal")
    if not journal.is_file():
        raise SightlineError(
            f"masks: {folder} was not written by `sightline masks`, whose journal is missing; name a folder that was"
        )
    known, entries = read_progress(journal)
    if known.get("masks of") != dataset.fingerprint:
        raise SightlineError(f"masks: those in {folder} are of another data set or split")
    if len(entries) < len(dataset):
        raise SightlineError(f"masks: {folder} has those of {len(entries)} images of {len(dataset)}; finish it first")
    return [Path(folder, name) for name in mask_names(dataset)]


def mask_names(dataset: ImageDataset) -> list[str]:
    """Return the mask file of each image, relative to the folder of masks."""
    if not isinstance(dataset, FileDataset):
        return [f"{index:06}.png" for index in range(len(dataset))]
    seen = [PurePath(relpath(record.path, dataset.root)) for record in dataset.records]
    names = [PurePath(*(p for p in one.parts if p != "..")).with_suffix(".png").as_posix() for one in seen]
    taken: dict[str, Path] = {}
    for name, record in zip(names, dataset.records):
        if (other := taken.setdefault(name, record.path)) != record.path:
            raise SightlineError(f"{other} and {record.path} would have the same mask file, {name}")
    return names


@DATASETS.register("found_masks", masks="some", groups=True)
def found_masks(source: Mapping[str, Any], masks: str) -> Splits:
    """Another data set whose training images have masks that `sightline masks` found, so guides need no annotation.

    The other splits are as they are, so a metric of maps is compared with their own masks, where they have any.

    Args:
        source: `name` and options of a registered data set.
        masks: the folder that `sightline masks` wrote for its split "train".

    Raises:
        SightlineError: the source has no training images, or the folder is not theirs.
    """
    splits = DATASETS.create_source(source)
    splits["train"] = FoundMasks(splits["train"], masks)
    return splits
