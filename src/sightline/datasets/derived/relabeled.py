"""A data set whose classes are counted as a model counts them."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torchvision import tv_tensors

from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.errors import SightlineError


class Relabeled(Derived):
    """A data set with other classes, of which it shows some: labels and the masks of classes are put where these belong.

    Args:
        dataset: the images.
        classes: the classes' names; those of the data set are among them.
    """

    def __init__(self, dataset: ImageDataset, classes: Sequence[str]) -> None:
        self.places = [list(classes).index(name) for name in dataset.classes]
        labels: list[Any] = [
            tuple(self.places[label] for label in given) if isinstance(given, tuple) else self.places[given]
            for given in dataset.label_list()
        ]
        super().__init__(dataset, ("relabeled",), classes=classes, labels=labels)

    def load(self, index: int) -> Sample:
        """Load the image with its label, and with one mask per class if it has those."""
        sample = self.dataset[index]
        mask = sample.mask
        if mask is not None and mask.ndim == 3:
            planes = mask.new_zeros(len(self.classes), *mask.shape[-2:])
            planes[self.places] = mask
            mask = tv_tensors.Mask(planes)
        return replace(sample, label=self.label(index), mask=mask)


def match_classes(dataset: ImageDataset, classes: Sequence[str], whose: str) -> ImageDataset:
    """Return the data set with its classes counted as a model counts them; with a warning where that changes anything.

    Args:
        dataset: the images.
        classes: the name of each of the model's logits.
        whose: who the classes belong to, for messages, such as "the model".

    Raises:
        SightlineError: the data set has a class that the model does not know.
    """
    if dataset.classes == list(classes):
        return dataset
    if unknown := [name for name in dataset.classes if name not in classes]:
        raise SightlineError(
            f"{len(unknown)} of the {len(dataset.classes)} classes of the data are unknown to {whose}: {_some(unknown)}. It "
            f"has {len(classes)} classes: {_some(classes)}. Classes are matched by name; rename those of the data"
        )
    differ = (
        f"the classes of {whose} are those of the data in another order"
        if len(dataset.classes) == len(classes)
        else f"the data has {len(dataset.classes)} classes and {whose} has {len(classes)}"
    )
    warnings.warn(f"{differ}; they were matched by name", stacklevel=2)
    return Relabeled(dataset, classes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
