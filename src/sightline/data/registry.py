"""The data sets that users choose by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from sightline._core.registry import Registry
from sightline.data.official import OFFICIAL
from sightline.data.splits import Splits
from sightline.errors import MissingFileError, SightlineError


class Datasets(Registry[Splits]):
    """Data sets by name; the error about a missing one says where to get it."""

    def create(self, name: str, **options: Any) -> Splits:
        """Make the data set of that name with these options.

        Raises:
            MissingFileError: its files are not where the options say.
        """
        try:
            return super().create(name, **options)
        except MissingFileError as error:
            where = self.where_to_get(name)
            raise MissingFileError(f"{error}; {where}" if where else str(error)) from error

    def can_fetch(self, name: str) -> bool:
        """Return whether torchvision can download a data set."""
        return "download" in inspect.signature(self[name].factory).parameters

    def where_to_get(self, name: str) -> str:
        """Return in words where a data set comes from; an empty string where that is unknown."""
        if self.can_fetch(name):
            return f"`sightline data prepare {name} root=FOLDER` downloads {name}"
        return f"{name} is available from {OFFICIAL[name].source}" if name in OFFICIAL else ""

    def create_source(self, source: Mapping[str, Any]) -> Splits:
        """Make the data set that another one is made of, from its `name` and options.

        Raises:
            SightlineError: there is no name.
        """
        if "name" not in source:
            raise SightlineError(f"source is {dict(source)}; it needs the name of a data set, such as 'pets'")
        return self.create(**source)


DATASETS = Datasets(
    "dataset",
    modules=("sightline.formats", "sightline.datasets.benchmarks", "sightline.datasets.derived"),
)
