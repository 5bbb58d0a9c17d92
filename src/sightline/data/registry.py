"""The data sets that users choose by name."""

from sightline.data.dataset import Splits
from sightline.registry import Registry

DATASETS: Registry[Splits] = Registry(
    "dataset",
    modules=(
        "sightline.data.pets",
        "sightline.data.folder",
        "sightline.data.recompose",
        "sightline.data.digits",
    ),
)
