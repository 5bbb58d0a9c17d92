"""The data sets that users choose by name."""

from collections.abc import Mapping
from typing import Any

from sightline.data.dataset import Splits
from sightline.errors import MissingFileError, SightlineError
from sightline.registry import Registry


class Datasets(Registry[Splits]):
    """Data sets by name; one that is not there is named with where it is to be had."""

    def create(self, name: str, **options: Any) -> Splits:
        """Make the data set of that name with these options.

        Raises:
            MissingFileError: its files are not where the options say.
        """
        try:
            return super().create(name, **options)
        except MissingFileError as error:
            from sightline.data.checking import to_be_had  # which looks up data sets itself

            where = to_be_had(name)
            raise MissingFileError(f"{error}; {where}" if where else str(error)) from error

    def of(self, source: Mapping[str, Any]) -> Splits:
        """Make the data set that another one is made of, from its `name` and options.

        Raises:
            SightlineError: there is no name.
        """
        if "name" not in source:
            raise SightlineError(f"source is {dict(source)}; it needs the name of a data set, such as 'pets'")
        return self.create(**source)


DATASETS = Datasets(
    "dataset",
    modules=(
        "sightline.data.pets",
        "sightline.data.cifar",
        "sightline.data.cub",
        "sightline.data.voc",
        "sightline.data.pascal_part",
        "sightline.data.coco",
        "sightline.data.folder",
        "sightline.data.recompose",
        "sightline.data.variants",
        "sightline.data.found_masks",
        "sightline.data.biased",
        "sightline.data.rival10",
        "sightline.data.imagenet9",
        "sightline.data.digits",
    ),
)
