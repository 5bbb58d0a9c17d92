"""Figures of matplotlib."""

from sightline._core.optional import requires_extra

with requires_extra("report", "a plot"):
    from sightline.reporting.plots.figures import (
        check_figure_name,
        draw_image,
        draw_overlay,
        new_figure,
        png,
        save_figure,
    )
    from sightline.reporting.plots.style import (
        ACCENT,
        COLORS,
        GRID,
        INK,
        MUTED,
        legend_above,
        legend_below,
        new_axes,
        svg_uri,
        tidy,
    )

__all__ = [
    "ACCENT",
    "COLORS",
    "GRID",
    "INK",
    "MUTED",
    "check_figure_name",
    "draw_image",
    "draw_overlay",
    "legend_above",
    "legend_below",
    "new_axes",
    "new_figure",
    "png",
    "save_figure",
    "svg_uri",
    "tidy",
]
