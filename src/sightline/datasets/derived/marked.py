"""Marks that predict the class: artefacts such as date stamps and rulers, put on any data set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline._core.checks import check_choice, check_fraction
from sightline._core.seeding import generator
from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.datasets.derived.marks import Mark, make_mark, make_variants
from sightline.datasets.derived.mask_quality import nested_share
from sightline.errors import SightlineError, unknown_name

Rest = Literal["none", "other"]
Test = Literal["swapped", "same", "removed"]
TESTS: dict[Test, tuple[float, Rest]] = {"swapped": (0.0, "other"), "same": (1.0, "none"), "removed": (0.0, "none")}
"""Test variant -> the share of images with the mark of their class, and what the others have."""


class Marked(Derived):
    """A data set whose images carry marks; groups are pairs (class, class of the mark).

    Which images of a class carry the mark of their class is drawn by the seed; a larger correlation keeps all that a
    smaller one has. `Sample.avoid` is the exact region of the mark, empty for an image without one. What is drawn depends on
    (seed, split, index).

    Args:
        dataset: the images, with one label each.
        marks: the mark of each class; None = the class has none.
        split: the name of the split; another name, another draw. Two sets of the same images, split and seed differ in the
            marks alone: every mark is at the same place.
        correlation: share in [0, 1] of the images with the mark of their class.
        rest: what the others have: "none", or the mark of an "other" class, drawn at random.
        seed: of the draw.

    Attributes:
        owners: (N,) int64, the class whose mark each image has; -1 = it has none.

    Raises:
        SightlineError: images can have several labels, or a value is out of its range.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        marks: Sequence[Mark | None],
        *,
        split: str,
        correlation: float = 1.0,
        rest: Rest = "none",
        seed: int = 0,
    ) -> None:
        dataset.check_single_label("a mark that predicts the class")
        check_fraction(correlation=correlation)
        check_choice(Rest, rest=rest)
        if len(marks) != len(dataset.classes):
            raise SightlineError(f"there are {len(marks)} marks; expected one or None for each of {dataset.classes}")
        self.marks, self.split, self.seed = list(marks), split, seed
        places = torch.arange(len(dataset))
        own = nested_share(places, dataset.labels, correlation, seed, f"marked/{split}")
        self.owners = torch.full_like(dataset.labels, -1)
        if rest == "other":
            self.owners[:] = torch.tensor([self._other(index, int(dataset.labels[index])) for index in places.tolist()])
        self.owners[own] = dataset.labels[own]
        marked = torch.tensor([mark is not None for mark in marks])
        self.owners[~(marked[self.owners] & (self.owners >= 0))] = -1
        count = len(dataset.classes)
        groups = [
            f"{name} {'without a mark' if other is None else f'with the mark of {other}'}"
            for name in dataset.classes
            for other in (*dataset.classes, None)
        ]
        told = [None if mark is None else (type(mark).__name__, sorted(vars(mark).items())) for mark in marks]
        super().__init__(
            dataset,
            ("marked", told, split, seed, self.owners.tolist()),
            has_avoid=torch.ones(len(dataset), dtype=torch.bool),
            groups=groups,
            group_ids=(dataset.labels * (count + 1) + self.owners % (count + 1)).tolist(),
        )

    def _other(self, index: int, label: int) -> int:
        """Return another class than that of the image."""
        step = torch.randint(1, len(self.marks), (), generator=generator(self.seed, self.split, index, "other mark"))
        return (label + int(step)) % len(self.marks)

    def load(self, index: int) -> Sample:
        """Load the image with its mark."""
        sample = self.dataset[index]
        image = sample.image.as_subclass(Tensor)
        mark = self.marks[owner] if (owner := int(self.owners[index])) >= 0 else None
        region = torch.zeros(image.shape[-2:], dtype=torch.bool)
        if mark is not None:
            image, region = mark.put(image, generator(self.seed, self.split, index, "mark"))
        avoid = region.to(torch.uint8)
        if sample.avoid is not None:  # a region of the source stays one
            avoid = torch.where(region, avoid, sample.avoid.as_subclass(Tensor))
        assert self.group_ids is not None
        return replace(
            sample, image=tv_tensors.Image(image), avoid=tv_tensors.Mask(avoid), group=int(self.group_ids[index])
        )


@DATASETS.register("marked", masks="some", groups=True)
def marked(
    source: Mapping[str, Any],
    *,
    mark: Mapping[str, Any] | None = None,
    marks: Mapping[str, Mapping[str, Any]] | None = None,
    correlation: float = 1.0,
    rest: Rest = "none",
    tests: Sequence[Test] = ("swapped", "same", "removed"),
    seed: int = 0,
) -> Splits:
    """Any data set with marks that predict the class in training and mislead in test: text, rulers, patches, borders, ...

    | split | images | marks |
    | --- | --- | --- |
    | train, val | the source's | own class's, `correlation` of them |
    | test_swapped | the source's main test split | another class's |
    | test_same | the same | own class's |
    | test_removed | the same | none |

    Every image has the exact region of its mark as region to avoid. Images of a class without a mark are not changed.

    Args:
        source: `name` and options of a registered data set with the split "train" and a main test split.
        mark: `kind` and options of the marks, one for each class, which differ in color, text, quality or factor. Kinds are
            "text", "ruler", "patch", "border", "jpeg" and "brightness".
        marks: instead of `mark`, the marks of some classes, by the name of the class.
        correlation: see `Marked`.
        rest: see `Marked`.
        tests: which test splits there are.
        seed: see `Marked`.

    Raises:
        SightlineError: not one of `mark` and `marks` is given, the source lacks a split, there is no such class or kind, or a
            value is out of its range.
    """
    if (mark is None) == (marks is None):
        raise SightlineError("mark and marks both say which marks there are; give one of them")
    if unknown := [name for name in tests if name not in get_args(Test)]:
        raise unknown_name("test", unknown[0], get_args(Test))
    original = DATASETS.create_source(source)
    drawn = (
        _marks_of(original.classes, marks) if marks is not None else make_variants(mark or {}, len(original.classes))
    )
    splits: dict[str, ImageDataset] = {}
    for name in ("train", "val"):
        if name == "train" or name in original:
            splits[name] = Marked(original[name], drawn, split=name, correlation=correlation, rest=rest, seed=seed)
    for test in tests:
        share, others = TESTS[test]
        shown = original[original.main_test]
        splits[f"test_{test}"] = Marked(shown, drawn, split="test", correlation=share, rest=others, seed=seed)
    return Splits(splits)


def _marks_of(classes: Sequence[str], marks: Mapping[str, Mapping[str, Any]]) -> list[Mark | None]:
    """Return the mark of each class, by the classes' names."""
    for name in marks:
        if name not in classes:
            raise unknown_name("class", name, classes)
    if not marks:
        raise SightlineError("marks are empty; expected the mark of at least one class")
    return [make_mark(marks[name]) if name in marks else None for name in classes]
