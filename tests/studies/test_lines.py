"""Panels of lines."""

import pytest

from sightline.reporting.plots.style import legend_below
from sightline.studies.lines import line_panels

ARMS = ["Baseline", "HNM", "FL", "EFL", "Ours-XGrad-CAM", "Ours-Eigen-CAM", "chance ± 1 standard deviation"]


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_legend_is_inside_the_plot(panels: int) -> None:
    lines = {variant: {0: [number, number + 1.0]} for number, variant in enumerate(ARMS)}
    figure, grid = line_panels({str(panel): lines for panel in range(panels)}, x_label="epoch", y_label="share")
    legend_below(figure, grid[0])
    figure.draw_without_rendering()
    (made,) = figure.legends
    assert [text.get_text() for text in made.get_texts()] == ARMS
    box = made.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0 < box.y1 <= grid[0].get_window_extent().y0
