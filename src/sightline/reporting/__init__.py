"""What a person looks at: overlays, plots, and reports of runs and evaluations."""

from sightline.reporting.overlay import Overlay, show

__all__ = ["Overlay", "show"]
