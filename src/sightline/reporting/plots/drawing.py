"""Grids of images as figures, and how a figure is saved."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from sightline.errors import SightlineError
from sightline.reporting.overlay import Overlay, save_image
from sightline.reporting.plots.style import blank_figure, draw_texts_as_written

TILE = 2.0  # inches per side


def new_figure(rows: int, columns: float) -> Figure:
    """Return an empty white figure that holds a grid of tiles."""
    return blank_figure(TILE * columns, TILE * rows + 0.25)


def draw_overlay(overlay: Overlay, axes: NDArray[np.object_]) -> None:
    """Draw an overlay onto a grid of axes: (B, at least 1 + methods)."""
    for column, (caption, images) in enumerate(overlay.columns):
        axes[0, column].set_title(caption, fontsize=9)
        for row in range(len(overlay.images)):
            if images is None:
                draw_words(axes[row, column], "not defined\nfor this model")
            else:
                draw_image(axes[row, column], images[row])


def draw_image(axes: Axes, image: Tensor) -> None:
    """Draw one image (C, H, W) in [0, 1] with no ticks and no frame."""
    axes.imshow(image.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy())
    clear_frame(axes)


def draw_words(axes: Axes, words: str) -> None:
    """Write a few words where an image would be."""
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=8, color="#64748b", transform=axes.transAxes)
    clear_frame(axes)


def clear_frame(axes: Axes) -> None:
    """Remove the ticks and the frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    draw_texts_as_written(figure)
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure, and make its folder.

    Raises:
        SightlineError: The suffix names no format.
        RunFailedError: The file cannot be written.
    """
    check_figure_name(path)
    draw_texts_as_written(figure)
    return save_image(figure.savefig, path)


def check_figure_name(path: str | Path) -> Path:
    """Return the path of a figure, or raise SightlineError where its suffix names no format."""
    if Path(path).suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise SightlineError(f"output is {str(path)!r}; expected a name that ends in .png, .jpg, .pdf or .svg")
    return Path(path)
