"""Samples, and datasets of them: made by a subclass, derived from another dataset, or in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from sightline.data.contents import content_of_files
from sightline.data.transforms import Resize, Saliency
from sightline.errors import SightlineError


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
        avoid: (H, W) uint8 `tv_tensors.Mask` with 1 = must not matter to the answer, such as a watermark, 0 = free, 255 =
            ignore; None = not annotated, which differs from a region without a pixel.
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
    avoid: tv_tensors.Mask | None = None


class ImageDataset(Dataset[Sample], ABC):
    """Labelled images, some or all of them with masks and groups. A subclass says how to `load` one.

    Args:
        classes: the classes' names; two or more.
        labels: each image's class, as an index into `classes`; or, of every image, a tuple of the classes that it shows.
        has_mask: for each image, whether it has a mask.
        groups: the groups' names; empty = no groups.
        group_ids: each image's group, as an index into `groups`; required where there are groups.
        identity: what else distinguishes this data set from another; enters the fingerprint by its `repr`.
        has_boxes: for each image, whether it has boxes; None = no image has.
        has_avoid: for each image, whether it has a region to avoid, which may be empty; None = no image has.

    Attributes:
        labels: (N,) int64; or (N, K) int64 with 1 for every class that an image shows.
        multi_label: whether an image can have several labels.
        has_mask: (N,) bool.
        has_boxes: (N,) bool.
        has_avoid: (N,) bool.
        group_ids: (N,) int64, or None.
        fingerprint: 16 hexadecimal digits that change when the labels, groups or identity do.
        skipped: files that were left out because they cannot be read.

    Raises:
        SightlineError: the images are missing, there are fewer than two classes, or a label or group out of range.
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
        has_avoid: Sequence[bool] | None = None,
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
        self.has_avoid = torch.tensor(has_avoid or [False] * len(labels), dtype=torch.bool)
        self.group_ids = None if group_ids is None else torch.tensor(group_ids, dtype=torch.int64)
        self.skipped: list[str] = []
        avoided = [list(has_avoid)] if has_avoid and any(has_avoid) else []
        whole = (self.classes, [*labels], list(has_mask), self.groups, group_ids, identity, *avoided)
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
        """Return the label of the image at an index, equal to that of its sample."""
        return self.labels[index] if self.multi_label else int(self.labels[index])

    def label_list(self) -> list[int] | list[tuple[int, ...]]:
        """Return the labels as the constructor takes them: one class per image, or a tuple of the classes that it shows."""
        if self.multi_label:
            return [tuple(row.nonzero()[:, 0].tolist()) for row in self.labels]
        return self.labels.tolist()

    def check_single_label(self, what: str) -> None:
        """Reject images that can have several labels, for what needs one of each."""
        if self.multi_label:
            raise SightlineError(f"{what} needs images with one label each; those of this data set can have several")

    def origins(self, index: int) -> list[tuple["ImageDataset", int]]:
        """Return the images of other data sets that the one at an index is made of, the labelled one first."""
        return []

    def path(self, index: int) -> str:
        """Where the image at a place comes from; a subclass that knows need not load it."""
        for dataset, place in self.origins(index):
            return dataset.path(place)
        return self[index].path

    def files(self, index: int) -> list[Path]:
        """Return the files that the sample at an index is read from, and that its origins are; empty where none is known."""
        return [file for dataset, place in self.origins(index) for file in dataset.files(place)]

    @cached_property
    def content(self) -> str | None:
        """16 hexadecimal digits that change with the content of the files, see `content_of_files`; None without files."""
        files = [file for index in range(len(self)) for file in self.files(index)]
        return content_of_files(files) if files else None

    def keep_in_memory(self, side: int | None = None) -> Self:
        """Load every sample now and keep it, so no later epoch decodes; worker processes share the memory.

        Masks of parts are not kept: they would take several times an image's memory, and training does not look at them.

        Args:
            side: scale images down to this shorter side, in pixels; None = unchanged.
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
        has_avoid: (N,) bool, which images have a region to avoid; None = those that had one.
        groups: names of groups instead of those of the data set, with `group_ids`; empty = those of the data set.
        group_ids: the new group of each image.
        classes: names of classes instead of those of the data set, with `labels`; None = those of the data set.
        labels: the new label of each image.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        identity: tuple[object, ...],
        has_mask: Tensor | None = None,
        *,
        has_avoid: Tensor | None = None,
        groups: Sequence[str] = (),
        group_ids: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        labels: Sequence[Any] = (),
    ) -> None:
        self.dataset = dataset
        if not groups and dataset.group_ids is not None:
            groups, group_ids = dataset.groups, dataset.group_ids.tolist()
        super().__init__(
            dataset.classes if classes is None else classes,
            dataset.label_list() if classes is None else labels,
            (dataset.has_mask if has_mask is None else has_mask).tolist(),
            groups=groups,
            group_ids=group_ids,
            identity=(dataset.fingerprint, *identity),
            has_boxes=dataset.has_boxes.tolist(),
            has_avoid=(dataset.has_avoid if has_avoid is None else has_avoid).tolist(),
        )
        self.skipped = dataset.skipped

    def origins(self, index: int) -> list[tuple[ImageDataset, int]]:
        """Return the image that is changed; a subclass tells the files of what it adds."""
        return [(self.dataset, index)]


def _to_keep(sample: Sample, side: int | None) -> Sample:
    sample = replace(sample, parts=None)
    if side is None or min(sample.image.shape[-2:]) <= side:
        return sample
    image, mask, boxes, avoid = Resize(side)(sample.image, sample.mask, sample.boxes, sample.avoid)
    return replace(sample, image=image, mask=mask, boxes=boxes, avoid=avoid)


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
            has_avoid=[s.avoid is not None for s in samples],
        )
        self._samples = list(samples)

    def load(self, index: int) -> Sample:
        """Load the sample at an index."""
        return replace(self._samples[index], index=index)
