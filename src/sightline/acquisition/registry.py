"""The ways to choose images, by name."""

from sightline._core.registry import Registry
from sightline.acquisition.base import Acquisition

ACQUISITIONS: Registry[Acquisition] = Registry(
    "acquisition",
    modules=(
        "sightline.acquisition.chance",
        "sightline.acquisition.uncertainty",
        "sightline.acquisition.coreset",
        "sightline.acquisition.consistency",
    ),
)
