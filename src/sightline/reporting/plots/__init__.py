"""Figures of matplotlib."""

from sightline._core.optional import requires_extra

with requires_extra("report", "a plot"):
    from sightline.reporting.plots.figures import draw_image, draw_overlay, new_figure, png, save_figure

__all__ = ["draw_image", "draw_overlay", "new_figure", "png", "save_figure"]
