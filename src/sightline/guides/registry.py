"""The guides, by name."""

from sightline._core.registry import Registry
from sightline.objectives.base import Guide

GUIDES: Registry[Guide] = Registry(
    "guide",
    modules=("sightline.guides",),
    needs_masks=False,
    needs_layer=False,
    pixel_space=False,
    reweights=False,
)
