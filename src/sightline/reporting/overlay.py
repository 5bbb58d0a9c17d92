"""Saliency maps laid over their images."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sightline._core.checks import check_fraction
from sightline._core.files import replacing_file
from sightline._core.output_lock import LONG, holding_file
from sightline._core.tensors import check_images, check_maps, check_unit_range
from sightline.errors import SightlineError
from sightline.explainers import Explained, resize_maps
from sightline.reporting.thumbnails import data_uri
from sightline.reporting.tiles import draw_tiles

# A map has 256 colors of plasma, interpolated between these. Plasma is perceptually uniform and, unlike inferno or viridis,
# saturated from end to end. Over a gray image, color is relevance and gray is the image.
ANCHORS = (
    "0d0887 330597 5002a2 6a00a8 8405a7 9c179e b12a90 c33d80 d35171 e16462 ed7953 f68f44 fca636 fec029 f9dc24 f0f921"
)


def _table() -> Tensor:
    """Return the colors (256, 3) in [0, 1]."""
    anchors = np.array([list(bytes.fromhex(color)) for color in ANCHORS.split()]) / 255
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, np.arange(len(anchors)), channel) for channel in anchors.T]
    return torch.from_numpy(np.stack(channels, axis=1)).float()


PLASMA = _table()


def colorize(maps: Tensor) -> Tensor:
    """Return the colors (B, 3, H, W) of maps (B, H, W) in [0, 1]."""
    return PLASMA[(maps * 256).long().clamp(0, 255)].permute(0, 3, 1, 2)


OPACITY = 0.7  # of the color where the map is 1; the image remains visible under it


def blend(images: Tensor, maps: Tensor) -> Tensor:
    """Return gray images with the maps in color over them.

    With m the map and w = 0.7 m, a pixel is (1 - w) gray + w colormap(m). Where m = 0 the gray image is unchanged.

    Args:
        images: (B, C, H, W) in [0, 1], C = 1 or 3.
        maps: (B, H, W) in [0, 1].

    Returns:
        (B, 3, H, W) in [0, 1], on the CPU.
    """
    images, maps = images.detach().float().cpu(), maps.detach().float().cpu()
    luminance = images.new_tensor([0.299, 0.587, 0.114] if images.shape[1] == 3 else [1.0])
    grey = torch.einsum("bchw,c->bhw", images, luminance)[:, None]
    color = colorize(maps)
    weight = OPACITY * maps[:, None]
    return (1 - weight) * grey + weight * color


def overlay_uri(image: Tensor, saliency: Tensor, border: Tensor | None) -> str:
    """Return a data URI of an image (3, H, W) in [0, 1] with a kept map (h, w) uint8 over it and an `outline` on it."""
    maps = resize_maps(saliency[None].float() / 255, (image.shape[-2], image.shape[-1]))
    return data_uri(blend(image[None], maps)[0], border)


def save_image(save: Callable[[Path], object], path: str | Path) -> Path:
    """Call a function that writes an image to a file of a given name; the image becomes `path`, whole or not at all.

    Raises:
        SightlineError: The suffix names no format.
        RunFailedError: The file cannot be written.
    """
    path = Path(path)
    with holding_file(path, LONG), replacing_file(path) as temporary:
        try:
            save(temporary)
        except ValueError as error:
            raise SightlineError(f"cannot save {path}: {error}") from error
    return path


@dataclass(frozen=True)
class Overlay:
    """A grid with one row per image: the image itself, then one overlay per method.

    A notebook displays it; `save` writes it to a file.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        overlays: caption of the column -> (B, 3, H, W) in [0, 1]; None where the method is not defined for the model.
        titles: one per row, or none.
    """

    images: Tensor
    overlays: dict[str, Tensor | None]
    titles: list[str]

    @property
    def columns(self) -> list[tuple[str, Tensor | None]]:
        """Caption and images of every column."""
        return [("image", self.images), *self.overlays.items()]

    def save(self, path: str | Path) -> Path:
        """Write the grid to a file and make its folder. The suffix selects the format (`.png`, `.jpg`, `.pdf`, ...).

        Raises:
            SightlineError: The suffix names no format.
            RunFailedError: The file cannot be written.
        """
        return save_image(draw_tiles(self.columns, self.titles).save, path)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        draw_tiles(self.columns, self.titles).save(buffer, format="PNG")
        return buffer.getvalue()


def show(
    images: Tensor | Explained,
    maps: Tensor | Mapping[str, Tensor | None] | None = None,
    titles: Sequence[str] | None = None,
    outliers: float = 0.01,
) -> Overlay:
    """Lay maps over their images.

    Args:
        images: (B, C, H, W) float in [0, 1], C = 1 or 3. Or what `sl.explain` returns for images that are no tensor, which has
            its own maps and names.
        maps: (B, H, W) float in [0, 1] as `sl.explain` returns them; or several methods side by side, caption -> maps, with
            None for a method that is not defined for the model.
        titles: one per image, written next to its row; None = the names of the images, where they are known.
        outliers: share of each map's highest pixels that are drawn as if they were 1. Without it a single pixel of an
            attribution would leave the rest too faint to see; a class activation map hardly changes.

    Returns:
        An overlay that a notebook displays and that saves itself: `sl.show(images, maps).save("maps.png")`.

    Raises:
        SightlineError: a shape, dtype or range is not as above, or the number of titles is not that of the images.

    Examples:
        >>> images = torch.rand(2, 3, 64, 64)
        >>> overlay = sl.show(images, maps=torch.rand(2, 64, 64), titles=["one", "two"])
        >>> overlay.save("overlay.png").name
        'overlay.png'
    """
    if isinstance(images, Explained):
        titles = [Path(name).name for name in images.names] if titles is None else titles
        maps = images.maps if maps is None else maps
        images = images.images
    if maps is None:
        raise SightlineError(
            "maps was not given; expected the maps (B, H, W) of the images, as `sl.explain` returns them"
        )
    check_images(images)
    if images.shape[1] not in (1, 3):
        raise SightlineError(
            f"images have {images.shape[1]} channels; only gray (1) and color (3) can be shown; "
            "give images with 1 or 3 channels"
        )
    check_unit_range(images, "images")
    named = dict(maps) if isinstance(maps, Mapping) else {"map": maps}
    if not named:
        raise SightlineError("maps is an empty mapping; give a tensor (B, H, W) or at least one caption -> maps")
    check_fraction("[0, 1)", outliers=outliers)
    for caption, tensor in named.items():
        if tensor is not None:
            argument = f"maps[{caption!r}]" if isinstance(maps, Mapping) else "maps"
            check_maps(tensor, images[:, 0].shape, argument=argument)
            check_unit_range(tensor, argument)
    titles = [] if titles is None else list(titles)
    if titles and len(titles) != len(images):
        raise SightlineError(f"titles has {len(titles)} entries for {len(images)} images; give one per image")
    overlays = {name: None if m is None else blend(images, _stretched(m, outliers)) for name, m in named.items()}
    return Overlay(images.detach().float().cpu(), overlays, titles)


def _stretched(maps: Tensor, outliers: float) -> Tensor:
    """Scale maps by the value that this share of their pixels exceeds, which becomes 1; zero stays zero."""
    pixels = maps.detach().float().flatten(1)
    top = pixels.kthvalue(max(1, round((1 - outliers) * pixels.shape[1])), dim=1).values[:, None, None]
    return torch.where(top > 0, maps / top.clamp_min(1e-12), maps).clamp(0, 1)
