"""Leave out the images of a dataset that cannot be read."""

import warnings
from collections.abc import Iterable, Sequence

from sightline.data.dataset import ImageDataset, Sample
from sightline.data.files import UnreadableFileError
from sightline.data.loader import Transformed
from sightline.datasets.derived.subset import Subset
from sightline.errors import SightlineError


def readable_part(dataset: ImageDataset) -> ImageDataset:
    """Read every image once, and return a dataset of those that can be read; a warning names the others.

    Raises:
        SightlineError: no image can be read.
    """
    kept, unreadable, reason = [], [], ""
    for index in range(len(dataset)):
        try:
            dataset[index]
        except UnreadableFileError as error:
            unreadable.append(dataset.path(index))
            reason = reason or str(error)
        else:
            kept.append(index)
    if not unreadable:
        return dataset
    report_unreadable(unreadable, reason, len(dataset))
    part = Subset(dataset, kept)
    part.skipped = [*dataset.skipped, *unreadable]
    return part


def read_some(data: Transformed, places: Iterable[int], count: int) -> tuple[dict[int, Sample], list[str]]:
    """Return the first samples of a list of places that can be read, by place, and the names of the others before them.

    A warning names these, too.

    Raises:
        SightlineError: none can be read.
    """
    found: dict[int, Sample] = {}
    unreadable, reason = [], ""
    for place in places:
        if len(found) == count:
            break
        try:
            found[place] = data[0, place]
        except UnreadableFileError as error:
            unreadable.append(data.dataset.path(place))
            reason = reason or str(error)
    if unreadable:
        report_unreadable(unreadable, reason, len(found) + len(unreadable))
    return found, unreadable


def report_unreadable(names: Sequence[str], reason: str, total: int) -> None:
    """Warn of images that were left out; reject where none is left.

    Args:
        names: the images.
        reason: why the first cannot be read.
        total: how many images there are, with those.
    """
    if len(names) >= total:
        raise SightlineError(
            f"none of the {total} images can be read: {reason}. Check the folder and the format of the files"
        )
    warnings.warn(
        f"{len(names)} of {total} images cannot be read and are left out: {shortened(names)}. The first: {reason}",
        stacklevel=3,
    )


def shortened(names: Iterable[str]) -> str:
    """Return the first five of some names."""
    names = list(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
