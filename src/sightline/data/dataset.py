"""What a data set is: samples, a set of them, and the splits of a whole."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from sightline._core.seeding import generator
from sightline.data.files import UnreadableFileError, mask_meaning, read_image, read_mask
from sightline.data.transforms import Saliency
from sightline.errors import SightlineError, unknown_name


@dataclass
class Sample:
    """One image with what is known of it.

    Args:
        image: (3, H, W) uint8 `tv_tensors.Image`; after the loader's transform float in [0, 1].
        label: its class; or (K,) int64 with 1 for every class that it shows, where images can have several.
        mask: (H, W) uint8 `tv_tensors.Mask` with 0 = background, 1 = object, 255 = ignore, or (K, H, W), the objects of each
            class; None = not annotated.
        index: its place in the data set.
        group: its group, such as (class, background); None where the data set has no groups.
        path: where it comes from.
        saliency: (1, H, W) float `Saliency`, its stored map, where the loader reads one.
        boxes: (N, 4) float `tv_tensors.BoundingBoxes`, xyxy in pixels, the boxes around its objects; None = none is known.
        parts: (P, H, W) uint8 `tv_tensors.Mask` with 1 = that part of its objects, such as heads; None = none is known.
    """

    image: tv_tensors.Image
    label: int | Tensor
    mask: tv_tensors.Mask | None
    index: int
    group: int | None
    path: str
    saliency: Saliency | None = None
    boxes: tv_tensors.BoundingBoxes | None = None
    parts: tv_tensors.Mask | None = None


class ImageDataset(Dataset[Sample], ABC):
    """Labelled images, some or all of them with masks and groups. A subclass says how to `load` one.

    Args:
        classes: the classes' names; two or more.
        labels: each image's class, as an index into `classes`; or, of every image, a tuple of the classes that it shows.
        has_mask: for each image, whether it has a mask.
        groups: the groups' names; empty = no groups.
        group_ids: each image's group, as an index into `groups`; required where there are groups.
        identity: whatever else distinguishes this data set from another; enters the fingerprint by its `repr`.
        has_boxes: for each image, whether it has boxes; None = no image has.

    Attributes:
        labels: (N,) int64; or (N, K) int64 with 1 for every class that an image shows.
        multi_label: whether an image can have several labels.
        has_mask: (N,) bool.
        has_boxes: (N,) bool.
        group_ids: (N,) int64, or None.
        fingerprint: 16 hexadecimal digits that change when the labels, groups or identity do.
        skipped: files that were left out because they cannot be read.

    Raises:
        SightlineError: there is no image, fewer than two classes, or a label or group out of range.
    """

    def __init__(
        self,
        classes: Sequence[str],
        labels: Sequence[int] | Sequence[tuple[int, ...]],
        has_mask: Sequence[bool],
        *,
        groups: Sequence[str] = (),
        group_ids: Sequence[int] | None = None,
        identity: object = None,
        has_boxes: Sequence[bool] | None = None,
    ) -> None:
        if not labels:
            raise SightlineError("the data set is empty; expected at least one image")
        if len(classes) < 2:
            raise SightlineError(f"the data set has the classes {list(classes)}; a classifier needs two or more")
        flat = [index for label in labels for index in (label if isinstance(label, tuple) else (label,))]
        if flat and not 0 <= min(flat) <= max(flat) < len(classes):
            raise SightlineError(f"labels range over {min(flat)} .. {max(flat)}; there are {len(classes)} classes")
        if bool(groups) != (group_ids is not None):
            raise SightlineError("groups and group_ids go together: give both or neither")
        if group_ids is not None and not 0 <= min(group_ids) <= max(group_ids) < len(groups):
            raise SightlineError(f"group_ids range over {min(group_ids)} .. {max(group_ids)}; there are {len(groups)}")
        self.classes = list(classes)
        self.groups = list(groups)
        self.multi_label = isinstance(labels[0], tuple)
        if self.multi_label:
            self.labels = torch.zeros(len(labels), len(classes), dtype=torch.int64)
            for row, present in zip(self.labels, labels):
                row[torch.tensor(present, dtype=torch.int64)] = 1
        else:
            self.labels = torch.tensor(labels, dtype=torch.int64)
        self.has_mask = torch.tensor(has_mask, dtype=torch.bool)
        self.has_boxes = torch.tensor(has_boxes or [False] * len(labels), dtype=torch.bool)
        self.group_ids = None if group_ids is None else torch.tensor(group_ids, dtype=torch.int64)
        self.skipped: list[str] = []
        whole = (self.classes, [*labels], list(has_mask), self.groups, group_ids, identity)
        self.fingerprint = hashlib.blake2b(repr(whole).encode(), digest_size=8).hexdigest()
        self._kept: list[Sample] = []

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Read or make the sample at a place."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside a data set of {len(self)} images")
        return self._kept[index] if self._kept else self.load(index)

    def label(self, index: int) -> int | Tensor:
        """The label of the image at a place, as its sample has it."""
        return self.labels[index] if self.multi_label else int(self.labels[index])

    def label_list(self) -> list[int] | list[tuple[int, ...]]:
        """The labels as the constructor takes them: a class of each image, or a tuple of the classes that it shows."""
        if self.multi_label:
            return [tuple(row.nonzero()[:, 0].tolist()) for row in self.labels]
        return self.labels.tolist()

    def check_single_label(self, what: str) -> None:
        """Refuse images that can have several labels, for what needs one of each."""
        if self.multi_label:
            raise SightlineError(f"{what} needs images with one label each; those of this data set can have several")

    def path(self, index: int) -> str:
        """Where the image at a place comes from; a subclass that knows need not load it."""
        return self[index].path

    def keep_in_memory(self, side: int | None = None) -> Self:
        """Load every sample now and keep it, so that no later epoch decodes; worker processes share the memory.

        Masks of parts are not kept: they would take several times an image's memory, and training does not look at them.

        Args:
            side: scale images down to this shorter side, in pixels; None = as they are.
        """
        if not self._kept:
            self._kept = [_to_keep(self.load(index), side) for index in range(len(self))]
        return self


class Derived(ImageDataset):
    """Another data set's images, one for one, which a subclass changes as it loads them.

    Args:
        dataset: the images.
        identity: what tells the changed images from the original ones; enters the fingerprint by its `repr`.
        has_mask: (N,) bool, which images have a mask; None = those that had one.
    """

    def __init__(self, dataset: ImageDataset, identity: tuple[object, ...], has_mask: Tensor | None = None) -> None:
        self.dataset = dataset
        super().__init__(
            dataset.classes,
            dataset.label_list(),
            (dataset.has_mask if has_mask is None else has_mask).tolist(),
            groups=dataset.groups,
            group_ids=None if dataset.group_ids is None else dataset.group_ids.tolist(),
            identity=(dataset.fingerprint, *identity),
            has_boxes=dataset.has_boxes.tolist(),
        )
        self.skipped = dataset.skipped

    def path(self, index: int) -> str:
        """The image's path."""
        return self.dataset.path(index)


def _to_keep(sample: Sample, side: int | None) -> Sample:
    sample = replace(sample, parts=None)
    if side is None or min(sample.image.shape[-2:]) <= side:
        return sample
    image, mask, boxes = v2.Resize(side)(sample.image, sample.mask, sample.boxes)
    return replace(sample, image=image, mask=mask, boxes=boxes)


class DrawnMask(Protocol):
    """A mask that is no picture on disk, such as polygons. Its `repr` tells it from another in the fingerprint."""

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) or (K, height, width) uint8 with 0 = background, 1 = object, 255 = ignore."""
        ...


_checks_files: ContextVar[bool] = ContextVar("_checks_files", default=True)


@contextmanager
def files_unchecked() -> Iterator[None]:
    """Within it, data sets are made of files that may be missing, so that whoever reads them can count those."""
    token = _checks_files.set(False)
    try:
        yield
    finally:
        _checks_files.reset(token)


@dataclass(frozen=True)
class Record:
    """One line of a file data set: a picture, its class, and where known its mask, its group and its boxes.

    Args:
        path: the picture's file.
        label: its class, or a tuple of all that it shows.
        mask: the mask's file, or what draws it.
        group: its group.
        boxes: xyxy in pixels; what lies beyond the picture is cut off.
    """

    path: Path
    label: int | tuple[int, ...]
    mask: Path | DrawnMask | None = None
    group: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()


class FileDataset(ImageDataset):
    """Pictures on disk.

    Args:
        records: the pictures; their masks are files of the same height and width.
        classes: the classes' names.
        root: the folder that paths are told from in the fingerprint, so that moving the data keeps it.
        groups: the groups' names; empty = no groups.
        meaning: (256,) uint8, what each value of a mask file stands for, or (K, 256), what it stands for in the mask of each
            class; default: every value but 0 is the object.
        skip_corrupt: read every file once now, and leave out and count those that are missing or cannot be read.

    Raises:
        SightlineError: see `ImageDataset`; a file is missing. On reading: a file cannot be read, or a mask has another
            size than its image.
    """

    def __init__(
        self,
        records: Sequence[Record],
        classes: Sequence[str],
        root: Path,
        *,
        groups: Sequence[str] = (),
        meaning: Tensor | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        self.meaning = mask_meaning() if meaning is None else meaning
        skipped = []
        if not skip_corrupt:
            files = (f for r in records for f in (r.path, r.mask) if isinstance(f, Path))
            missing = [str(f) for f in files if not f.is_file()] if _checks_files.get() else []
            if missing:
                raise SightlineError(f"{len(missing)} files are missing, the first of them {missing[0]}")
        else:
            readable = [self._is_readable(record) for record in records]
            skipped = [str(record.path) for record, good in zip(records, readable) if not good]
            records = [record for record, good in zip(records, readable) if good]
        self.records = list(records)
        self.root = root
        told = [
            (_told_from(root, r.path), _told_from(root, r.mask) if isinstance(r.mask, Path) else r.mask)
            for r in records
        ]
        boxes = [r.boxes for r in records]
        super().__init__(
            classes,
            [r.label for r in records],  # type: ignore[arg-type]  # all of one kind
            [r.mask is not None for r in records],
            groups=groups,
            group_ids=[r.group for r in records if r.group is not None] if groups else None,
            identity=(told, self.meaning.tolist(), *([boxes] if any(boxes) else [])),
            has_boxes=[bool(b) for b in boxes],
        )
        self.skipped = skipped

    def path(self, index: int) -> str:
        """The picture's file."""
        return str(self.records[index].path)

    def load(self, index: int) -> Sample:
        """Read a picture and its mask."""
        record = self.records[index]
        image, mask = self._read(record)
        return Sample(
            image=tv_tensors.Image(image),
            label=self.label(index),
            mask=None if mask is None else tv_tensors.Mask(mask),
            index=index,
            group=record.group,
            path=str(record.path),
            boxes=as_boxes(record.boxes, image.shape[-2:]) if record.boxes else None,
        )

    def _read(self, record: Record) -> tuple[Tensor, Tensor | None]:
        image = read_image(record.path)
        if record.mask is None:
            return image, None
        if not isinstance(record.mask, Path):
            return image, record.mask.draw(*image.shape[-2:])
        mask = read_mask(record.mask, self.meaning)
        if mask.shape[-2:] != image.shape[-2:]:
            raise SightlineError(
                f"the mask {record.mask} is {mask.shape[-1]} x {mask.shape[-2]} pixels (width x height) and its image "
                f"{record.path} is {image.shape[2]} x {image.shape[1]}; they must agree"
            )
        return image, mask

    def _is_readable(self, record: Record) -> bool:
        try:
            self._read(record)
        except UnreadableFileError:
            return False
        return True


def as_boxes(boxes: Sequence[Sequence[float]], size: Sequence[int]) -> tv_tensors.BoundingBoxes:
    """Boxes, xyxy in pixels, of an image (height, width)."""
    edges = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return tv_tensors.BoundingBoxes(edges, format="XYXY", canvas_size=tuple(size))


def _told_from(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


class InMemory(ImageDataset):
    """Samples that already are in memory.

    Args:
        samples: the samples, in order; without groups.
        classes: the classes' names.
        identity: what distinguishes them, for the fingerprint.
    """

    def __init__(self, samples: Sequence[Sample], classes: Sequence[str], identity: object) -> None:
        labels = [s.label if isinstance(s.label, int) else tuple(s.label.nonzero()[:, 0].tolist()) for s in samples]
        super().__init__(
            classes,
            labels,  # type: ignore[arg-type]  # all of one kind
            [s.mask is not None for s in samples],
            identity=identity,
            has_boxes=[s.boxes is not None for s in samples],
        )
        self._samples = list(samples)

    def load(self, index: int) -> Sample:
        """The sample at a place."""
        return replace(self._samples[index], index=index)


class Splits(dict[str, ImageDataset]):
    """The splits of a dataset by name: "train", mostly "val", and "test", or "test_shifted" with "test_iid".

    Raises:
        SightlineError: there is no split, the splits disagree on the classes, or one asks for a split that is not here.
    """

    def __init__(self, splits: Mapping[str, ImageDataset]) -> None:
        super().__init__(splits)
        if not self:
            raise SightlineError("a data set needs at least one split")
        for name, split in self.items():
            if split.classes != self.classes:
                raise SightlineError(f"the split {name!r} has the classes {split.classes}; others have {self.classes}")

    def __missing__(self, name: str) -> ImageDataset:
        raise unknown_name("split", name, self)

    @property
    def classes(self) -> list[str]:
        """The classes' names, the same in every split."""
        return next(iter(self.values())).classes

    @property
    def groups(self) -> list[str]:
        """The groups' names; empty = no groups."""
        return next(iter(self.values())).groups

    @property
    def main_test(self) -> str:
        """The name of the test split that results are reported on first: "test", else "test_shifted".

        Raises:
            SightlineError: the dataset has neither.
        """
        return find_main_test(self)

    def select(self, name: str | None) -> ImageDataset:
        """Return the split of that name; None selects the main test split."""
        return self[name or self.main_test]

    def describe(self) -> dict[str, Any]:
        """What each split holds, as plain numbers and strings for a run's record."""
        return {name: _describe(split) for name, split in self.items()}


MAIN_TESTS = ("test", "test_shifted")


def find_main_test(names: Iterable[str]) -> str:
    """Return the first of `MAIN_TESTS` among the names of a dataset's splits.

    Raises:
        SightlineError: none of them is there.
    """
    present = list(names)
    for name in MAIN_TESTS:
        if name in present:
            return name
    raise SightlineError(
        f"the splits are {', '.join(present)}; expected one of {' and '.join(MAIN_TESTS)}, or name a split"
    )


def _describe(split: ImageDataset) -> dict[str, Any]:
    def count(names: list[str], ids: Tensor) -> dict[str, int]:
        return dict(zip(names, torch.bincount(ids, minlength=len(names)).tolist()))

    return {
        "images": len(split),
        "masks": int(split.has_mask.sum()),
        "classes": dict(zip(split.classes, split.labels.sum(0).tolist()))
        if split.multi_label
        else count(split.classes, split.labels),
        "groups": {} if split.group_ids is None else count(split.groups, split.group_ids),
        "skipped": split.skipped,
        "fingerprint": split.fingerprint,
    }


def divide(
    labels: Sequence[int | tuple[int, ...]], parts: Mapping[str, float], seed: int, per_class: int | None = None
) -> dict[str, list[int]]:
    """Divide places at random, each class in the same way: the named parts first, and "train" is what remains.

    Args:
        labels: each place's class; places with several classes are divided together.
        parts: for each part a share of every class, as a float in [0, 1), or a count of every class, as an int.
        seed: another seed, another division.
        per_class: keep this many of each class for "train"; a larger number contains what a smaller one keeps.

    Returns:
        Places by part, in increasing order; a part of size 0 is left out.

    Raises:
        SightlineError: a size is negative or a share is not below 1, or nothing, or less than
            `per_class`, remains of a class.
    """
    for name, size in parts.items():
        if size < 0 or (isinstance(size, float) and size >= 1):
            raise SightlineError(f"{name} is {size}; expected a share in [0, 1) or a whole number of images a class")
    divided: dict[str, list[int]] = {name: [] for name in ("train", *parts)}
    strata = [label if isinstance(label, int) else -1 for label in labels]
    for label in sorted(set(strata)):
        members = torch.tensor([i for i, other in enumerate(strata) if other == label])
        members = members[torch.randperm(len(members), generator=generator(seed, label, "division"))]
        sizes = [round(size * len(members)) if isinstance(size, float) else size for size in parts.values()]
        remaining = len(members) - sum(sizes)
        if remaining < max(1, per_class or 1):
            name = "the set" if label < 0 else f"class {label}"
            raise SightlineError(
                f"{name} has {len(members)} images, and {dict(parts)} leave {remaining} of them to train on; "
                f"expected at least {per_class or 1}"
            )
        *held_out, train = members.split([*sizes, remaining])
        for name, piece in zip((*parts, "train"), (*held_out, train[:per_class])):
            divided[name] += piece.tolist()
    return {name: sorted(places) for name, places in divided.items() if places}
