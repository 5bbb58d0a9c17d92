"""Figures of matplotlib."""

from sightline._core.optional import requires_extra

with requires_extra("report", "a plot"):
    import matplotlib  # noqa: F401
