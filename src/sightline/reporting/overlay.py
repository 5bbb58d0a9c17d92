"""Maps laid over their images, as pictures."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from sightline._core.tensors import check_images
from sightline.errors import SightlineError

# Plasma is perceptually uniform and, unlike inferno or viridis, saturated from end to end. Over a *grey* image that
# leaves no doubt: colour is relevance and only relevance, grey is the photograph.
COLORMAP = "plasma"
OPACITY = 0.7  # of a pixel of relevance 1; the rest of the photograph stays to be seen under it
TILE = 2.0  # inches a side


def blend(images: Tensor, maps: Tensor) -> Tensor:
    """Colour over the grey image, the more of it the more relevant the pixel.

    With m the map and w = 0.7 m, a pixel is (1 - w) grey + w colormap(m): where m = 0 the photograph is left as it is.

    Args:
        images: (B, C, H, W) in [0, 1], C = 1 or 3.
        maps: (B, H, W) in [0, 1].

    Returns:
        (B, 3, H, W) in [0, 1], on the CPU.
    """
    images, maps = images.detach().float().cpu(), maps.detach().float().cpu()
    luminance = images.new_tensor([0.299, 0.587, 0.114] if images.shape[1] == 3 else [1.0])
    grey = torch.einsum("bchw,c->bhw", images, luminance)[:, None]
    color = torch.from_numpy(matplotlib.colormaps[COLORMAP](maps.numpy())[..., :3]).float().permute(0, 3, 1, 2)
    weight = OPACITY * maps[:, None]
    return (1 - weight) * grey + weight * color


@dataclass(frozen=True)
class Overlay:
    """A grid of pictures, one row an image: the image itself, then one overlay a method.

    A notebook shows it as it is; `save` writes it to a file.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        overlays: caption of the column -> (B, 3, H, W) in [0, 1]; None where the method is not defined for the model.
        titles: one a row, or none.
    """

    images: Tensor
    overlays: dict[str, Tensor | None]
    titles: list[str]

    def figure(self) -> Figure:
        """The grid as a matplotlib figure."""
        figure = new_figure(rows=len(self.images), columns=1 + len(self.overlays))
        axes = figure.subplots(len(self.images), 1 + len(self.overlays), squeeze=False)
        for row, title in zip(axes, self.titles or [""] * len(self.images)):
            row[0].set_ylabel(title, fontsize=8)
        self.draw(axes)
        return figure

    def draw(self, axes: NDArray[np.object_]) -> None:
        """Draw onto a grid of axes that is there already: (B, at least 1 + methods)."""
        for column, (caption, pictures) in enumerate([("image", self.images), *self.overlays.items()]):
            axes[0, column].set_title(caption, fontsize=9)
            for row in range(len(self.images)):
                if pictures is None:
                    draw_words(axes[row, column], "not defined\nfor this model")
                else:
                    draw_picture(axes[row, column], pictures[row])

    def save(self, path: str | Path) -> Path:
        """Write the grid to a file, whose suffix says the format (`.png`, `.pdf`, ...)."""
        return save_figure(self.figure(), path)

    def _repr_png_(self) -> bytes:
        return png(self.figure())


def show(
    images: Tensor,
    maps: Tensor | Mapping[str, Tensor | None],
    titles: Sequence[str] | None = None,
    outliers: float = 0.01,
) -> Overlay:
    """Lay maps over their images.

    Args:
        images: (B, C, H, W) float in [0, 1], C = 1 or 3.
        maps: (B, H, W) float in [0, 1] as `sl.explain` returns them; or several methods side by side, caption -> maps, with
            None for a method that is not defined for the model.
        titles: one an image, written beside its row.
        outliers: share of each map's highest pixels that are drawn as if they were 1. Without it a single pixel of an
            attribution would leave the rest too faint to see; a class activation map hardly changes.

    Returns:
        An overlay that a notebook displays and that saves itself: `sl.show(images, maps).save("maps.png")`.

    Raises:
        SightlineError: a shape, dtype or range is not as above, or the number of titles is not that of the images.
    """
    check_images(images)
    if images.shape[1] not in (1, 3):
        raise SightlineError(f"images have {images.shape[1]} channels; only grey (1) and colour (3) can be shown")
    _check_range("images", images)
    named = dict(maps) if isinstance(maps, Mapping) else {"map": maps}
    if not named:
        raise SightlineError("maps is an empty mapping; give a tensor (B, H, W) or at least one caption -> maps")
    if not 0 <= outliers < 1:
        raise SightlineError(f"outliers is {outliers}; expected a share in [0, 1)")
    for caption, tensor in named.items():
        if tensor is not None:
            _check_maps(f"maps[{caption!r}]" if isinstance(maps, Mapping) else "maps", tensor, images)
    titles = [] if titles is None else list(titles)
    if titles and len(titles) != len(images):
        raise SightlineError(f"titles has {len(titles)} entries for {len(images)} images; give one an image")
    overlays = {name: None if m is None else blend(images, _stretched(m, outliers)) for name, m in named.items()}
    return Overlay(images.detach().float().cpu(), overlays, titles)


def _stretched(maps: Tensor, outliers: float) -> Tensor:
    """Maps scaled so that the value which that share of their pixels exceeds becomes 1; what is zero stays zero."""
    pixels = maps.detach().float().flatten(1)
    top = pixels.kthvalue(max(1, round((1 - outliers) * pixels.shape[1])), dim=1).values[:, None, None]
    return torch.where(top > 0, maps / top.clamp_min(1e-12), maps).clamp(0, 1)


def new_figure(rows: int, columns: float) -> Figure:
    """An empty white figure that holds a grid of tiles."""
    return Figure(figsize=(TILE * columns, TILE * rows + 0.25), dpi=150, layout="constrained", facecolor="white")


def draw_picture(axes: Axes, picture: Tensor) -> None:
    """Draw one image (C, H, W) in [0, 1] with no ticks and no frame."""
    pixels = picture.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy()
    axes.imshow(pixels)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_words(axes: Axes, words: str) -> None:
    """Write a few words where a picture would be."""
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=8, color="#64748b", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure, making the folder that it goes into.

    Raises:
        SightlineError: the suffix names no format, or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except ValueError as error:
        raise SightlineError(f"cannot save {path}: {error}") from error
    except OSError as error:
        raise SightlineError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _check_maps(argument: str, maps: Tensor, images: Tensor) -> None:
    expected = (len(images), *images.shape[-2:])
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        came = f"dtype {maps.dtype}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
        raise SightlineError(f"{argument} is {came}; expected a float tensor {expected} in [0, 1]")
    if tuple(maps.shape) != expected:
        raise SightlineError(f"{argument} has shape {tuple(maps.shape)}; expected {expected}, as the images")
    _check_range(argument, maps)


def _check_range(argument: str, values: Tensor) -> None:
    low, high = torch.aminmax(values.detach())
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # written so that NaN fails it
        raise SightlineError(f"{argument} range over [{low:.3g}, {high:.3g}]; expected values in [0, 1]")
