"""The images of a study, told by place, class or file."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline._core.seeding import generator
from sightline.data import DATASETS, Batch, ImageDataset, Splits
from sightline.data.files import locate
from sightline.data.image_files import read_image
from sightline.data.image_listing import IMAGE_SUFFIXES
from sightline.data.splits import MAIN_TESTS
from sightline.data.transforms import eval_transform
from sightline.datasets.imagenet_names import COUNT, are_wnids, imagenet_classes, names_of_wnids
from sightline.errors import SightlineError, unknown_name
from sightline.runs.recipe_parts import Data

ImageChoice = int | str
Place = int | Path  # in the data set, or a file outside it


class ImageSelection:
    """The held-out images of a data set, opened when one of them is wanted, and single files.

    Args:
        data: the data set; None = files alone.
        study: whose images they are, for messages.
        split: the split that is explained; None = the test images.
    """

    def __init__(self, data: Data | None, study: str, split: str | None = None) -> None:
        self.data = data
        self.study = study
        self.split = split

    @cached_property
    def splits(self) -> Splits:
        """The data set.

        Raises:
            SightlineError: it is missing; the message names what to give.
        """
        give = (
            "Pass data.root=FOLDER, the folder of this dataset; 'data={name: csv, path: FILE.csv}', a table with the columns "
            "path and label; or 'data={name: folder, root: FOLDER}', a folder with one subfolder per class"
        )
        if self.data is None:
            raise SightlineError(f"{self.study} needs images. {give}")
        try:
            return DATASETS.create(self.data.name, **self.data.options)
        except SightlineError as error:
            raise SightlineError(f"{self.study} needs images. {error}. {give}") from error

    @cached_property
    def held_out(self) -> ImageDataset:
        """The images that are explained.

        Raises:
            SightlineError: no split is named and there is no test split; training images are explained if that is asked for.
        """
        splits = self.splits
        try:
            return splits.select(self.split)
        except SightlineError as error:
            how = "" if self.split else " by split=NAME (evaluate: --splits NAME); split=train takes training images"
            raise SightlineError(f"{self.study}: {error}{how}") from error

    @cached_property
    def classes(self) -> list[str]:
        """The classes' names: ImageNet's, where the data numbers a thousand of them or names them by wnids."""
        names = self.splits.classes
        if are_wnids(names):
            return names_of_wnids(names)
        return imagenet_classes() if names == [str(index) for index in range(COUNT)] else names

    def draw(self, count: int, seed: int) -> list[Place]:
        """Seeded places of this many images, in increasing order; of fewer images, some of the same."""
        size = len(self.held_out)
        if count > size:
            raise SightlineError(f"{self.study}: {count} images were asked for; the data has {size}")
        return [*sorted(torch.randperm(size, generator=generator(seed, "images"))[:count].tolist())]

    def find(self, choice: ImageChoice) -> Place:
        """Return the image at an index, the first one of a class, or that of a file.

        Raises:
            SightlineError: no such place, class or file.
        """
        if isinstance(choice, int):
            if not 0 <= choice < len(self.held_out):
                raise SightlineError(
                    f"images: {choice} is not an index of the {len(self.held_out)} images, counted from 0"
                )
            return choice
        if Path(choice).suffix.lower() in IMAGE_SUFFIXES:
            return locate(choice, "images")
        return self.members(choice)[0]

    def members(self, name: str) -> list[int]:
        """Return the indices of a class's images."""
        if name not in self.classes:
            raise unknown_name("class of an image:", name, self.classes)
        members = (self.held_out.labels == self.classes.index(name)).nonzero().flatten().tolist()
        if not members:
            raise SightlineError(f"{self.study}: the data has no image of the class {name!r}")
        return members

    def another(self, place: Place, seed: int) -> Place:
        """Another image of the same class, drawn by the seed.

        Raises:
            SightlineError: there is none, or the class is not known.
        """
        name = self.label(place)
        others = [] if name is None else [member for member in self.members(name) if member != place]
        if not others:
            raise SightlineError(
                f"{self.study} needs another image of what {self.path(place)} shows: give reference=FILE, or data with more "
                "images per class"
            )
        return others[int(torch.randint(len(others), (), generator=generator(seed, str(place), "reference")))]

    def check_training(self) -> None:
        """Reject data without training images in addition to those that are explained."""
        if not any(name in self.splits for name in MAIN_TESTS):
            raise SightlineError(
                f"{self.study} takes features of training images, and the data has one split alone: give data with the "
                "splits train and test"
            )

    def training(self, labels: Tensor, side: int) -> Iterator[Batch]:
        """Yield the training images of these classes, as batches."""
        train = self.splits["train"]
        see = eval_transform(side)
        for places in torch.isin(train.labels, labels).nonzero().flatten().split(32):
            images = [see(train[place].image).as_subclass(Tensor) for place in places.tolist()]
            yield Batch(torch.stack(images), train.labels[places], indices=places)

    def read(self, places: Sequence[Place], side: int) -> Tensor:
        """Images (B, 3, side, side) in [0, 1], resized and cropped as in evaluation."""
        see = eval_transform(side)
        found = [tv_tensors.Image(read_image(p)) if isinstance(p, Path) else self.held_out[p].image for p in places]
        return torch.stack([see(image).as_subclass(Tensor) for image in found])

    def path(self, place: Place) -> str:
        """Where an image comes from."""
        return str(place) if isinstance(place, Path) else self.held_out.path(place)

    def label(self, place: Place) -> str | None:
        """Return the name of an image's class; None for a file, whose class is not known."""
        return None if isinstance(place, Path) else self.classes[self.class_of(place)]

    def class_of(self, place: Place) -> int:
        """Return the class index of an image in the dataset."""
        if isinstance(place, Path):
            raise SightlineError(
                f"{self.study} looks up the class of each image; that of the file {place} is not known"
            )
        return int(self.held_out.labels[place])
