"""The data sets that users choose by name."""

from sightline.data.dataset import Splits
from sightline.registry import Registry

DATASETS: Registry[Splits] = Registry(
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
