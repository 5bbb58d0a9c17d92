"""The guides, by name."""

from sightline.guides.base import Guide
from sightline.registry import Registry

GUIDES: Registry[Guide] = Registry(
    "guide",
    modules=("sightline.guides.segment_overlap", "sightline.guides.random_background"),
)
