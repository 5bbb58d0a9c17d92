"""What single filters of a layer respond to: outlined, or circled, in the images that drive them the most."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from sightline._core.checks import check_choice, check_count, check_fraction
from sightline._core.tensors import check_images
from sightline.errors import SightlineError
from sightline.evaluation.filter_responses import FilterRow, measure_filters
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.reporting.plots.drawing import draw_image, new_figure, png, save_figure

Style = Literal["contours", "circles"]
LINE = "#dc2626"
HALO = withStroke(linewidth=3, foreground="white")  # so the line is seen on any ground
DIMMED = 0.45  # of the light outside a contour that stays


@dataclass(frozen=True)
class FilterGallery:
    """A grid of images, one row per filter. A notebook shows it; `save` writes it to a file.

    Attributes:
        rows: the filters, by group.
        coherence: how similar filters of one group are, relative to all: 1 = as any others, at most the number of groups.
        style: `"contours"` or `"circles"`.
        threshold: the share of a filter's highest activation that a contour follows.
    """

    rows: list[FilterRow]
    coherence: float
    style: Style
    threshold: float

    def figure(self) -> Figure:
        """Draw the grid as a matplotlib figure."""
        columns = len(self.rows[0].images)
        figure = new_figure(len(self.rows), columns)
        axes = figure.subplots(len(self.rows), columns, squeeze=False)
        for row, places in zip(self.rows, axes):
            places[0].set_ylabel(f"filter {row.number}\n1 of {row.members} in group {row.group}", fontsize=8)
            for image, saliency, circle, place in zip(row.images, row.maps, row.circles.tolist(), places):
                if self.style == "contours":
                    _draw_contour(place, image, saliency, self.threshold)
                else:
                    _draw_circle(place, image, circle)
        return figure

    def save(self, path: str | Path) -> Path:
        """Write the grid to a file, whose suffix says the format (`.png`, `.pdf`, ...)."""
        return save_figure(self.figure(), path)

    def _repr_png_(self) -> bytes:
        return png(self.figure())


def show_filters(
    model: nn.Module,
    images: Tensor,
    layer: LayerChoice | None = None,
    input_spec: InputSpec | None = None,
    *,
    groups: int | Tensor = 16,
    filters: Sequence[int] | None = None,
    pictures: Tensor | None = None,
    columns: int = 6,
    style: Style = "contours",
    threshold: float = 0.5,
) -> FilterGallery:
    """Draw where filters of a layer respond.

    `"contours"` outlines where the filter's map, at the image's size, exceeds a share of its highest value in all the images.
    `"circles"` marks the effective receptive field of the highest activation. With g the squared gradient of that activation
    for each pixel, the centre is the mean of the places weighted by g, and the radius that of a disc whose points have the
    same mean square distance from it.

    Args:
        model: a classifier; used in eval mode.
        images: (N, C, H, W) in [0, 1], N at least 2, C = 1 or 3: what filters are judged by.
        layer: the layer; None chooses by the model's family.
        input_spec: normalises the images inside.
        groups: how many groups of filters to make, by the similarity in these images as icCNN does; or the group (C,) of
            each filter, such as `ICCNN.filter_groups`.
        filters: which filters; default: of every group the one that is most like the others in it.
        pictures: (M, C, H, W) the columns of every row; default: for each filter, the images that drive it the most.
        columns: how many images those are.
        style: `"contours"` or `"circles"`.
        threshold: the share of the filter's highest activation for contours, in (0, 1).

    Raises:
        SightlineError: an argument is not as above.

    References:
        Figures 5 and 6 of "Improving Network Interpretability via Explanation Consistency Evaluation". The effective receptive
        field is that of Luo et al., NeurIPS 2016.
    """
    for argument, given in (("images", images), ("pictures", pictures)):
        if given is not None:
            check_images(given, argument)
            low, high = torch.aminmax(given)
            if given.shape[1] not in (1, 3) or low < 0 or high > 1:
                raise SightlineError(f"{argument} must be grey or in colour, in [0, 1], to be drawn")
    if len(images) < 2:
        raise SightlineError("images holds 1 image; filters need at least 2")
    check_choice(Style, style=style)
    check_fraction("(0, 1)", threshold=threshold)
    check_count(columns=columns)

    rows, coherence = measure_filters(
        model, images, layer, input_spec, groups=groups, filters=filters, given=pictures, columns=columns
    )
    return FilterGallery(rows, coherence, style, threshold)


def _draw_contour(axes: Axes, image: Tensor, saliency: Tensor, threshold: float) -> None:
    inside = saliency > threshold
    draw_image(axes, torch.where(inside, image, DIMMED * image))
    if inside.any() and not inside.all():
        lines = axes.contour(saliency.numpy(), levels=[threshold], colors=LINE, linewidths=1.4)
        lines.set(path_effects=[HALO])


def _draw_circle(axes: Axes, image: Tensor, circle: Sequence[float]) -> None:
    draw_image(axes, image)
    x, y, radius = circle
    if radius:
        axes.add_patch(Circle((x, y), radius, fill=False, color=LINE, linewidth=1.6, path_effects=[HALO]))
