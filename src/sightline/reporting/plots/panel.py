"""The panel of `sightline explain`: what the model says about an image, and where several methods say it looked."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sightline.reporting.overlay import Overlay
from sightline.reporting.plots.drawing import clear_frame, draw_overlay, new_figure
from sightline.reporting.plots.style import ACCENT, MUTED


def panel(
    overlay: Overlay, probabilities: Tensor, targets: Sequence[int], classes: Sequence[str], top: int = 5
) -> Figure:
    """One row per image: the image, its overlays, and the most probable classes as bars.

    Args:
        overlay: of `sightline.show`.
        probabilities: (B, K), rows sum to 1.
        targets: (B,) the class that the maps explain; its bar is coloured.
        classes: K names.
        top: classes listed an image.
    """
    rows, columns = len(overlay.images), 1 + len(overlay.overlays)
    figure = new_figure(rows, columns + 1.7)
    axes = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[1] * columns + [1.7])
    draw_overlay(overlay, axes)
    axes[0, -1].set_title("prediction", fontsize=9)
    for row, title in enumerate(overlay.titles or [""] * rows):
        axes[row, 0].set_xlabel(title, fontsize=7)
        _draw_bars(axes[row, -1], probabilities[row].float().cpu(), int(targets[row]), classes, top)
    return figure


def _draw_bars(axes: Axes, probabilities: Tensor, target: int, classes: Sequence[str], top: int) -> None:
    best = probabilities.topk(min(top, len(probabilities))).indices.tolist()
    # An explained class that is not among the likeliest is listed under them, so the panel says what it explains.
    shown = best if target in best else [*best, target]
    values = [float(probabilities[k]) for k in shown]
    axes.barh(range(len(shown)), values, height=0.3, color=[ACCENT if k == target else MUTED for k in shown])
    for row, (index, value) in enumerate(zip(shown, values)):
        name = classes[index] if len(classes[index]) <= 26 else classes[index][:25] + "…"
        axes.text(0, row - 0.24, name, fontsize=7.5, va="bottom", weight="bold" if index == target else "normal")
        axes.text(1, row - 0.24, f"{value:.1%}", fontsize=7.5, va="bottom", ha="right")
    axes.set(xlim=(0, 1), ylim=(max(len(shown), top) - 0.5, -0.8))
    clear_frame(axes)
