"""What a person looks at: overlays, panels, and the report that compares run folders."""

from sightline.reporting.comparison.report import compare
from sightline.reporting.overlay import Overlay, show

__all__ = ["Overlay", "compare", "show"]
