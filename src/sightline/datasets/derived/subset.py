"""Some of a data set's images, as a file names them, and pseudo-labels for some of these."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from sightline._core.csv_files import csv_text, read_csv
from sightline._core.files import write_atomically
from sightline._core.output_lock import LONG, holding_file
from sightline.data.dataset import ImageDataset, Sample
from sightline.errors import SightlineError, unknown_name


class Subset(ImageDataset):
    """Some images of a data set, numbered again from 0.

    An image with a pseudo-label counts as of that class, and has no mask, boxes or region to avoid, as nobody has annotated
    it. Where any image has a pseudo-label, no groups are known either.

    Args:
        dataset: where the images come from.
        indices: theirs in it, each once.
        pseudo_labels: place -> class, instead of the label.

    Raises:
        SightlineError: there is no such place or class, a place comes twice, or
            pseudo-labels are given where images can have several labels.
    """

    def __init__(
        self, dataset: ImageDataset, indices: Sequence[int], pseudo_labels: Mapping[int, int] | None = None
    ) -> None:
        self.dataset, self.indices, self.pseudo_labels = dataset, list(indices), dict(pseudo_labels or {})
        seen: set[int] = set()
        for place in self.indices:
            if not 0 <= place < len(dataset):
                raise SightlineError(f"image {place} does not exist: the data set has {len(dataset)}, counted from 0")
            if place in seen:
                raise SightlineError(f"image {place} is listed twice; expected each image once")
            seen.add(place)
        if not self.pseudo_labels.keys() <= seen:
            raise SightlineError(
                f"a pseudo-label refers to image {min(self.pseudo_labels.keys() - seen)}, which is not in the subset"
            )
        if self.pseudo_labels:
            dataset.check_single_label("a pseudo-label")
        rows = torch.tensor(self.indices, dtype=torch.int64)
        given = dataset.label_list()
        labels: list[Any] = [self.pseudo_labels.get(place, given[place]) for place in self.indices]
        annotated = torch.tensor([place not in self.pseudo_labels for place in self.indices], dtype=torch.bool)
        groups = not self.pseudo_labels and dataset.group_ids is not None
        super().__init__(
            dataset.classes,
            labels,
            (dataset.has_mask[rows] & annotated).tolist(),
            groups=dataset.groups if groups else (),
            group_ids=dataset.group_ids[rows].tolist() if groups and dataset.group_ids is not None else None,
            identity=(dataset.fingerprint, self.indices, sorted(self.pseudo_labels.items())),
            has_boxes=(dataset.has_boxes[rows] & annotated).tolist(),
            has_avoid=(dataset.has_avoid[rows] & annotated).tolist(),
        )
        self.skipped = dataset.skipped

    def origins(self, index: int) -> list[tuple[ImageDataset, int]]:
        """Return the image in the data set."""
        return [(self.dataset, self.indices[index])]

    def load(self, index: int) -> Sample:
        """Load the image, with its pseudo-label if it has one."""
        place = self.indices[index]
        sample = replace(self.dataset[place], index=index)
        if not self.groups:
            sample = replace(sample, group=None)
        if place in self.pseudo_labels:
            sample = replace(sample, label=self.pseudo_labels[place], mask=None, boxes=None, avoid=None)
        return sample


@dataclass(frozen=True)
class Listed:
    """A line of a list of samples.

    Attributes:
        index: the image's place in its split.
        path: where it comes from, for people, and to notice that a list is of other data; empty = not told.
        pseudo_label: the name of the class that a model takes it for; empty = its own label counts.
        round: when it was chosen; 0 = from the start.
        score: how much it was wanted then; None = it was drawn.
    """

    index: int
    path: str = ""
    pseudo_label: str = ""
    round: int = 0
    score: float | None = None


def read_list(file: Path) -> list[Listed]:
    """Read a list of samples: a CSV file with the column `index`, and perhaps other columns of `Listed`.

    Raises:
        SightlineError: the file cannot be read, or a line does not say which image; the message names it.
    """
    rows = read_csv(file, ["index"])
    if not rows:
        raise SightlineError(f"the list of samples {file} names no image")
    found = []
    for number, row in rows:
        try:
            index, when = int(row["index"]), int(row.get("round") or 0)
            score = float(row["score"]) if row.get("score") else None
        except (TypeError, ValueError):
            raise SightlineError(
                f"{file}, line {number}: index, round or score is not a number: {', '.join(f'{k}={v}' for k, v in row.items())}"
            ) from None
        found.append(Listed(index, row.get("path") or "", row.get("pseudo_label") or "", when, score))
    return found


def write_list(file: Path, lines: Sequence[Listed]) -> None:
    """Write what `read_list` reads, whole or not at all, and make the folder of the file."""
    rows = (asdict(line) | {"score": "" if line.score is None else f"{line.score:.6g}"} for line in lines)
    with holding_file(file, LONG):
        write_atomically(file, csv_text([field.name for field in fields(Listed)], rows, "\n").encode())


def listed(dataset: ImageDataset, file: Path) -> Subset:
    """Return the images of a split that a list of samples names.

    Raises:
        SightlineError: as for `read_list` and `Subset`, or the list has another file name for an image than the data.
    """
    lines = read_list(file)
    pseudo_labels = {}
    for line in lines:
        if line.pseudo_label:
            if line.pseudo_label not in dataset.classes:
                raise unknown_name(f"class of image {line.index} in {file}:", line.pseudo_label, dataset.classes)
            pseudo_labels[line.index] = dataset.classes.index(line.pseudo_label)
    try:
        subset = Subset(dataset, [line.index for line in lines], pseudo_labels)
    except SightlineError as error:
        raise SightlineError(f"the list of samples {file}: {error}") from error
    for line in lines:
        if line.path and PurePath(line.path).name != PurePath(path := dataset.path(line.index)).name:
            raise SightlineError(
                f"{file} is a list of other data: its image {line.index} is {line.path}, and here it is {path}"
            )
    return subset
