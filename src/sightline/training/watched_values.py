"""The values of validation splits, by which a run selects and a sweep compares."""

from collections.abc import Mapping

from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError, unknown_name

FIGURES = ("loss", "accuracy", "mean_class_accuracy", "worst_class_accuracy", "worst_group_accuracy", "map", "f1")


def check_watched(key: str, name: str, splits: Mapping[str, ImageDataset]) -> list[str]:
    """Return the values of the validation splits among some splits, as "split/metric".

    Raises:
        SightlineError: the name, the value of a key, is none of them.
    """
    known = [
        f"{val}/{each}" for val, split in splits.items() if val.startswith("val") for each in names_of_values(split)
    ]
    if not known:
        raise SightlineError(f"{key} is {name!r}, but the data has no validation split; give it a share `val`")
    if name not in known:
        raise unknown_name(key, name, known)
    return known


def names_of_values(split: ImageDataset) -> list[str]:
    """Return the names of the values that a validation split has."""
    by_class = ["map", "f1"] if split.multi_label else ["mean_class_accuracy", "worst_class_accuracy"]
    return ["loss", "accuracy", *by_class, *(["worst_group_accuracy"] if split.groups else [])]
