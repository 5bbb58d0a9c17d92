"""What single filters of a layer respond to: outlined, or circled, in the images that drive them the most."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import at_least_float32, check_images
from sightline.errors import SightlineError
from sightline.explainers.base import resize_maps
from sightline.network.filter_groups import Moments, membership, part_coherence, spectral_groups
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice
from sightline.network.tap import Tap, evaluating
from sightline.reporting.plots.figures import draw_image, new_figure, png, save_figure

Style = Literal["contours", "circles"]
LINE = "#dc2626"
HALO = withStroke(linewidth=3, foreground="white")  # so that the line is seen on any ground
DIMMED = 0.45  # of the light outside a contour that stays


@dataclass(frozen=True)
class FilterRow:
    """One filter in some images.

    Attributes:
        number: its channel in the layer.
        group: the group it belongs to.
        members: how many filters that group has.
        images: (M, C, H, W) in [0, 1].
        maps: (M, H, W) its activation, as a share of its highest one in the images it was judged by.
        circles: (M, 3) x, y and radius in pixels: the effective receptive field of its highest activation; 0 where silent.
    """

    number: int
    group: int
    members: int
    images: Tensor
    maps: Tensor
    circles: Tensor


@dataclass(frozen=True)
class FilterGallery:
    """A grid of pictures, one row a filter. A notebook shows it as it is; `save` writes it to a file.

    Attributes:
        rows: the filters, by group.
        coherence: how alike filters of one group are, beside all: 1 = as alike as any others, at most the number of groups.
        style: `"contours"` or `"circles"`.
        threshold: the share of a filter's highest activation that a contour follows.
    """

    rows: list[FilterRow]
    coherence: float
    style: Style
    threshold: float

    def figure(self) -> Figure:
        """The grid as a matplotlib figure."""
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

    Reference:
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
        raise SightlineError("images holds 1 image; filters are judged by at least 2")
    if style not in get_args(Style):
        raise SightlineError(f"style is {style!r}; expected 'contours' or 'circles'")
    if not 0 < threshold < 1:
        raise SightlineError(f"threshold is {threshold}; expected a share between 0 and 1")
    if columns < 1:
        raise SightlineError(f"columns is {columns}; expected at least 1 image for each filter")

    look = _Look(Tap(model, layer), input_spec)
    with evaluating(look.tap.model):
        similarity, peaks = look.over(images)
        assigned = groups.cpu() if isinstance(groups, Tensor) else spectral_groups(similarity, groups)
        if len(assigned) != len(similarity):
            raise SightlineError(f"groups has {len(assigned)} entries; the layer has {len(similarity)} filters")
        members = membership(assigned, int(assigned.max()) + 1)
        chosen = _typical(similarity, members, peaks.amax(0) > 0) if filters is None else list(filters)
        if strange := [each for each in chosen if not 0 <= each < len(assigned)]:
            raise SightlineError(f"filters holds {strange[0]}; the layer has the filters 0 to {len(assigned) - 1}")
        if not chosen:
            raise SightlineError("filters is empty, or no filter responds to the images")
        rows = []
        for number in chosen:
            best = peaks[:, number].topk(min(columns, len(images))).indices
            shown = images[best] if pictures is None else pictures
            maps, circles = look.at(shown, number)
            shares = (maps / peaks[:, number].amax().clamp_min(torch.finfo(maps.dtype).tiny)).clamp(0, 1)
            group = int(assigned[number])
            rows.append(FilterRow(number, group, int((assigned == group).sum()), shown.cpu(), shares, circles))
    rows.sort(key=lambda row: (row.group, row.number))
    return FilterGallery(rows, part_coherence(similarity, members).item(), style, threshold)


class _Look:
    """A model's filters, looked at."""

    def __init__(self, tap: Tap, input_spec: InputSpec | None) -> None:
        self.tap = tap
        self._spec = input_spec
        self._device = next(tap.model.parameters()).device

    def over(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The filters' similarity (C, C), and each filter's highest activation in each image (N, C)."""
        moments = Moments()

        def look(start: int, stop: int) -> Tensor:
            activations = self._activations(images[start:stop])
            moments.add(activations)
            return activations.amax((2, 3)).cpu()

        with torch.no_grad():
            peaks = InternalBatches().map(look, len(images), images)
        return moments.similarity(), peaks

    def at(self, images: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """One filter's map (M, H, W) in each image, and the circle (M, 3) of its highest activation."""
        with torch.enable_grad():
            pixels = images.detach().clone().requires_grad_()
            maps = self._activations(pixels, train=True)[:, number]
            peaks = maps.flatten(1).max(1).values  # of several places as high, one
            (gradient,) = torch.autograd.grad(peaks.sum(), pixels)
        circles = effective_field(gradient.square().sum(1)) * (peaks.detach() > 0).to(gradient)[:, None].cpu()
        return resize_maps(maps.detach(), (images.shape[-2], images.shape[-1])).cpu(), circles

    def _activations(self, images: Tensor, train: bool = False) -> Tensor:
        here = images.to(self._device)
        inputs = to_inputs(here, self._spec)
        return at_least_float32(self.tap(inputs, train=train).activations[0])


def effective_field(weights: Tensor) -> Tensor:
    """The circle (N, 3), as x, y and radius in pixels, that has the mean place and spread of weights (N, H, W).

    A uniform disc of radius R has the mean square distance R^2 / 2 from its centre. The centre of the first pixel is (0, 0).
    """
    weights = weights.detach().double().cpu() if weights.device.type == "mps" else weights.detach().double()
    y, x = torch.meshgrid(*(torch.arange(n).to(weights) for n in weights.shape[1:]), indexing="ij")
    mass = weights / weights.sum((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    centre_x, centre_y = (mass * x).sum((1, 2)), (mass * y).sum((1, 2))
    distance = (x - centre_x[:, None, None]) ** 2 + (y - centre_y[:, None, None]) ** 2
    return torch.stack([centre_x, centre_y, (2 * (mass * distance).sum((1, 2))).sqrt()], 1).float().cpu()


def _typical(similarity: Tensor, members: Tensor, responds: Tensor) -> list[int]:
    """Of every group, the filter (among those that respond) with the highest similarity to the others in it."""
    within = (similarity @ members.to(similarity) * members).sum(1)
    chosen = []
    for group in range(members.shape[1]):
        candidates = (members[:, group].bool() & responds).nonzero()[:, 0]
        if len(candidates):
            chosen.append(int(candidates[within[candidates].argmax()]))
    return chosen


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
