"""What a person looks at: overlays, panels, and the report that compares run folders."""

from sightline.reporting.overlay import Overlay, show
from sightline.reporting.report import compare

__all__ = ["Overlay", "compare", "show"]
