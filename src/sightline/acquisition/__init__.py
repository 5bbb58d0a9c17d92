"""Learning from few labels: which images to label next."""

from typing import Any

from sightline.acquisition.base import Acquisition, Choice, Pool, Ranking
from sightline.acquisition.choosing import choose_after, choose_samples
from sightline.acquisition.registry import ACQUISITIONS

__all__ = [
    "ACQUISITIONS",
    "Acquisition",
    "Choice",
    "Pool",
    "Ranking",
    "choose_after",
    "choose_samples",
    "create_acquisition",
]


def create_acquisition(name: str, **options: Any) -> Acquisition:
    """A way to choose images by name, with its options: `create_acquisition("consistency", explainer="xgradcam")`."""
    return ACQUISITIONS.create(name, **options)
