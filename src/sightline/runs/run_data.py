"""The data of a run, compared with what the run was trained on."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.data import Splits
from sightline.data.dataset import ImageDataset
from sightline.data.files import locate
from sightline.datasets.derived.mask_quality import nested_share
from sightline.datasets.derived.subset import Subset, listed
from sightline.errors import SightlineError
from sightline.runs.recipe import Recipe
from sightline.runs.run import Run

FINGERPRINTS = "data_fingerprints"
"""The key of run.json with the fingerprint of each split, before `train_samples` and its like take images away."""

CONTENTS = "data_contents"
"""The key of run.json with `content` of each split that has files, as of the fingerprints; earlier runs do not have it."""


class RunSplits(Splits):
    """The splits of a run's data. Taking one that is not what it was in training is an error.

    Args:
        run: the run.
        splits: what its recipe gives now.

    Raises:
        SightlineError: the classes are not those that the run was trained on. On taking a split: it has changed.
    """

    def __init__(self, run: Run, splits: Splits) -> None:
        super().__init__(splits)
        self.run = run
        facts = run.facts
        self.before: Mapping[str, str] = facts.get(FINGERPRINTS, {})
        self.contents: Mapping[str, str] = facts.get(CONTENTS, {})
        self.recorded: Mapping[str, Any] = facts.get("data", {})
        if self.classes != facts["classes"]:
            added = [name for name in self.classes if name not in facts["classes"]]
            missing = [name for name in facts["classes"] if name not in self.classes]
            changes = [
                f"{what}: {', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}"
                for what, names in (("new", added), ("missing", missing))
                if names
            ]
            raise SightlineError(
                f"the classes of the data of {run.path} are not those that it was trained on ("
                f"{'; '.join(changes) or 'their order changed'}). Restore the data, or train again"
            )

    def __getitem__(self, name: str) -> ImageDataset:
        split = super().__getitem__(name)
        if self.before.get(name, split.fingerprint) != split.fingerprint:
            counts = f" ({self.recorded[name]['images']} images then, {len(split)} now)" if name != "train" else ""
            raise SightlineError(
                f"the split {name!r} of the data of {self.run.path} is not what it was when the run was trained{counts}: "
                "images, labels, masks or boxes were added, removed or changed. Restore the data, or train again"
            )
        if (before := self.contents.get(name)) is not None and split.content not in (before, None):
            raise SightlineError(
                f"the split {name!r} of the data of {self.run.path} is not what it was when the run was trained: files have "
                "the same names and other content. Restore the files, or train again"
            )
        return split


def read_splits(run: Run) -> RunSplits:
    """Return the data of a run's recipe, complete: `train_samples`, `train_fraction` and `mask_fraction` remove nothing.

    Raises:
        SightlineError: the data is missing, or its classes are not those that the run was trained on.
    """
    return RunSplits(run, run.recipe.data.create())


def training_images(recipe: Recipe, images: ImageDataset) -> ImageDataset:
    """Return those of the images of the split "train" that a recipe trains on, by `train_samples` and `train_fraction`."""
    if recipe.train_samples is not None:
        images = listed(images, locate(recipe.train_samples, "train_samples"))
    if recipe.train_fraction == 1:
        return images
    strata = torch.zeros(len(images), dtype=torch.int64) if images.multi_label else images.labels
    places = nested_share(torch.arange(len(images)), strata, recipe.train_fraction, recipe.seed, "train_fraction")
    if not len(places):
        raise SightlineError(
            f"train_fraction is {recipe.train_fraction}, and {len(images)} training images leave none; choose a larger share"
        )
    return Subset(images, sorted(places.tolist()))


def seen_in_training(run: Run, name: str, images: ImageDataset) -> Tensor | None:
    """Return (N,) bool, which of some images are files that a run was trained on; None where that is unknown.

    Warns if this is unknown because the run's own data has changed.

    Args:
        run: the run.
        name: the registered name of the data set that the images are from.
        images: those that its model is to be judged by.
    """
    source = run.recipe.data.options.get("source", {})
    if name not in (run.recipe.data.name, source.get("name")) or not os.path.isfile(images.path(0)):
        return None
    try:
        train = training_images(run.recipe, read_splits(run)["train"])
    except SightlineError as error:
        warnings.warn(f"cannot tell whether {run.path} was trained on some of these images: {error}", stacklevel=2)
        return None
    known = {os.path.abspath(train.path(index)) for index in range(len(train))}
    return torch.tensor([os.path.abspath(images.path(index)) in known for index in range(len(images))])


def warn_of_training_images(run: Run, name: str, images: ImageDataset) -> None:
    """Warn if a run was trained on files among some images, or if that is unknown."""
    seen = seen_in_training(run, name, images)
    if seen is not None and seen.any():
        warnings.warn(f"{run.path} was trained on {int(seen.sum())} of these {len(images)} images", stacklevel=2)
