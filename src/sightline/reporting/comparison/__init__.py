"""The report that compares two groups of runs."""

from sightline._core.optional import requires_extra

with requires_extra("report", "compare"):
    from sightline.reporting.comparison.report import compare

__all__ = ["compare"]
