"""Several splits as one data set."""

from dataclasses import replace

from sightline.data.dataset import ImageDataset, Sample
from sightline.data.file_dataset import FileDataset
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.formats.packed import PackedDataset


class Joined(ImageDataset):
    """The images of several splits, one split after the other, without groups.

    Args:
        splits: name -> images, all with the same classes.
    """

    def __init__(self, splits: Splits) -> None:
        self.splits = splits
        parts = list(splits.values())
        self._places = [(part, index) for part in parts for index in range(len(part))]
        super().__init__(
            splits.classes,
            [label for part in parts for label in part.label_list()],  # type: ignore[arg-type]  # all of one kind
            [has for part in parts for has in part.has_mask.tolist()],
            identity=[part.fingerprint for part in parts],
            has_boxes=[has for part in parts for has in part.has_boxes.tolist()],
            has_avoid=[has for part in parts for has in part.has_avoid.tolist()],
        )
        self.skipped = sorted({name for part in parts for name in part.skipped})

    def load(self, index: int) -> Sample:
        """Load the sample at an index."""
        part, place = self._places[index]
        return replace(part[place], index=index, group=None)

    def origins(self, index: int) -> list[tuple[ImageDataset, int]]:
        """Return the image in its split."""
        return [self._places[index]]


def whole_folder(splits: Splits) -> ImageDataset:
    """Return all images of splits that hold different files; else the main test split, as others may show the same images."""
    parts = [splits[name] for name in splits]  # the data of a run is compared with the run
    named = [part for part in parts if isinstance(part, FileDataset | PackedDataset)]
    files = [{part.path(index) for index in range(len(part))} for part in named]
    if len(files) == len(parts) and sum(map(len, files)) == len(set().union(*files)):
        return parts[0] if len(parts) == 1 else Joined(splits)
    try:
        return splits.select(None)
    except SightlineError:
        return parts[0]
