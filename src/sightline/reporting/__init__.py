"""Reporting: overlays, plots, and pages about runs and evaluations."""

from sightline.reporting.overlay import Overlay, show

__all__ = ["Overlay", "show"]
