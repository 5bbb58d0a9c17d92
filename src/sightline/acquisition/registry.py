"""The ways to choose images, by name."""

from sightline.acquisition.base import Acquisition
from sightline.registry import Registry

ACQUISITIONS: Registry[Acquisition] = Registry(
    "acquisition",
    modules=(
        "sightline.acquisition.chance",
        "sightline.acquisition.uncertainty",
        "sightline.acquisition.coreset",
        "sightline.acquisition.consistency",
    ),
)
