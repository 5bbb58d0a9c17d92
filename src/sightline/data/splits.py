"""The splits of a dataset, and the division of images into splits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sightline._core.seeding import generator
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError, unknown_name


class Splits(dict[str, ImageDataset]):
    """The splits of a dataset by name: "train", mostly "val", and "test", "test_shifted" or "test_swapped".

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
        """The name of the test split that results are reported on first: the first of `MAIN_TESTS` that there is.

        Raises:
            SightlineError: the dataset has none of them.
        """
        return find_main_test(self)

    def select(self, name: str | None) -> ImageDataset:
        """Return the split of that name; None selects the main test split."""
        return self[name or self.main_test]

    def describe(self) -> dict[str, Any]:
        """Describe what each split holds, as plain numbers and strings for a run's record."""
        return {name: _describe(split) for name, split in self.items()}


MAIN_TESTS = ("test", "test_shifted", "test_swapped")


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
        f"the splits are {', '.join(present)}; expected one of {', '.join(MAIN_TESTS)}, or name a split"
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
    check_sizes(parts)
    divided: dict[str, list[int]] = {name: [] for name in ("train", *parts)}
    strata = [label if isinstance(label, int) else -1 for label in labels]
    for label in sorted(set(strata)):
        members = torch.tensor([i for i, other in enumerate(strata) if other == label])
        members = members[torch.randperm(len(members), generator=generator(seed, label, "division"))]
        sizes = [round(size * len(members)) if isinstance(size, float) else size for size in parts.values()]
        remaining = len(members) - sum(sizes)
        if remaining < max(1, per_class or 1):
            raise nothing_left(label, len(members), parts, remaining, per_class)
        *held_out, train = members.split([*sizes, remaining])
        for name, piece in zip((*parts, "train"), (*held_out, train[:per_class])):
            divided[name] += piece.tolist()
    return {name: sorted(places) for name, places in divided.items() if places}


def check_sizes(parts: Mapping[str, float]) -> None:
    """Reject sizes of parts that are neither shares nor counts, or leave nothing."""
    for name, size in parts.items():
        if size < 0 or (isinstance(size, float) and not size < 1):
            raise SightlineError(f"{name} is {size}; expected a share in [0, 1) or a whole number of images per class")
    if sum(size for size in parts.values() if isinstance(size, float)) >= 1:
        raise SightlineError(f"{dict(parts)} leave nothing to train on; expected shares that sum to less than 1")


def nothing_left(
    label: int, count: int, parts: Mapping[str, float], remaining: int, per_class: int | None
) -> SightlineError:
    """Return the error of a class (-1 = all images together) of which too little remains."""
    return SightlineError(
        f"{'the set' if label < 0 else f'class {label}'} has {count} images, and {dict(parts)} leave {remaining} of them to "
        f"train on; expected at least {per_class or 1}"
    )
