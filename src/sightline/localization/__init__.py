"""Localization: boxes and masks of objects, from maps, masks, or a network that has seen no label."""
