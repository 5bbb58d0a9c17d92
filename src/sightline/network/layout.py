"""How the output of a layer is laid out, and the output as a feature map."""

import warnings
from dataclasses import dataclass, field
from math import ceil, log
from typing import Literal

from torch import Tensor

from sightline.errors import SightlineError

Layout = Literal["channels_first", "channels_last", "tokens"]
Grid = tuple[int, int]


@dataclass(frozen=True)
class Evidence:
    """What a model says about a layer's output in addition to its layout.

    Args:
        channels: how many the output has.
        patches: (height, width) in pixels of the patches that tokens may stand for.
    """

    channels: int | None = None
    patches: tuple[Grid, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A target layer that declares how its output is laid out.

    Args:
        name: the module's name on the model, as in `model.named_modules()`.
        layout: `"channels_first"` (B, C, h, w), `"channels_last"` (B, h, w, C) or `"tokens"` (B, prefix + h * w, C).
        prefix: for tokens, how many of them at the start stand for no place (class and register tokens).
        evidence: set by the library: what the model says about the output.
        inferred: set by the library: the layout is not declared, so it must not contradict the image and the evidence.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> first = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
        >>> sl.explain(model, torch.rand(1, 3, 64, 64), layer=sl.Layer(first, "channels_first")).shape
        torch.Size([1, 64, 64])
    """

    name: str
    layout: Layout = "channels_first"
    prefix: int = 0
    evidence: Evidence = field(default=Evidence(), compare=False, repr=False)
    inferred: bool = field(default=False, compare=False, repr=False)


def to_spatial(layer: Layer, raw: Tensor, image_size: Grid) -> Tensor:
    """Return what a layer gave as activations (B, C, h, w).

    Raises:
        SightlineError: it has another layout than the layer's, or tokens that form no grid; or another layout alone agrees with
            the model, or, where the layout is not declared, with the image.

    Warns:
        UserWarning: the layout is declared, and another one alone agrees with the image.
    """
    expected = 3 if layer.layout == "tokens" else 4
    if raw.ndim != expected:
        raise SightlineError(
            f"layer {layer.name!r} returned shape {tuple(raw.shape)}, which is not {layer.layout}; choose another layer, "
            "or declare its layout: sightline.Layer(name, layout=..., prefix=...)"
        )
    if layer.layout == "tokens":
        tokens = raw[:, layer.prefix :]
        return tokens.transpose(1, 2).unflatten(2, _token_grid(layer, tokens.shape[1], image_size))
    _check_reading(layer, tuple(raw.shape), image_size)
    return raw if layer.layout == "channels_first" else raw.permute(0, 3, 1, 2)


def _check_reading(layer: Layer, shape: tuple[int, ...], image_size: Grid) -> None:
    """Reject a layout that the image or the model contradicts, where the other one agrees with both.

    A network may shrink one side of the image more than the other, so the image alone does not prove a declared layout wrong.
    """
    grids: dict[Layout, Grid] = {"channels_first": (shape[2], shape[3]), "channels_last": (shape[1], shape[2])}
    channels = {"channels_first": shape[1], "channels_last": shape[3]}
    plausible = [
        layout
        for layout, grid in grids.items()
        if _fits(grid, image_size) and layer.evidence.channels in (None, channels[layout])
    ]
    if not plausible or layer.layout in plausible:
        return
    (other,) = plausible
    mine, theirs = grids[layer.layout], grids[other]
    message = (
        f"layer {layer.name!r} returned shape {shape}: as {layer.layout}, {mine[0]} x {mine[1]} places of an image of "
        f"{image_size[0]} x {image_size[1]} pixels; as {other}, {theirs[0]} x {theirs[1]}; if so, declare it: "
        f"sightline.Layer({layer.name!r}, {other!r})"
    )
    if layer.inferred or channels[other] == layer.evidence.channels:
        raise SightlineError(message)
    warnings.warn(message, stacklevel=3)


def _fits(grid: Grid, image_size: Grid) -> bool:
    """Return whether a grid may have the aspect of an image, of which it may miss or add a part of a row and a column."""
    (h, w), (height, width) = grid, image_size
    return (h - 1) * width <= height * (w + 1) and height * (w - 1) <= (h + 1) * width


def _token_grid(layer: Layer, count: int, image_size: Grid) -> Grid:
    """Return the grid (h, w) that tokens stand for, in an image that is cropped or padded to whole patches."""
    height, width = image_size
    for h, w in layer.evidence.patches:
        for grid in ((height // h, width // w), (ceil(height / h), ceil(width / w))):
            if grid[0] * grid[1] == count:
                return grid
    grids = [(h, count // h) for h in range(1, count + 1) if count % h == 0]
    found = [grid for grid in grids if _has_stride(grid, image_size)]
    if not found:  # a model may crop and pad in turn
        fitting = [grid for grid in grids if _fits(grid, image_size)]
        found = fitting if len(fitting) == 1 else []
    if not found:
        raise SightlineError(
            f"layer {layer.name!r} has {count} tokens after {layer.prefix} prefix tokens, which do not form a grid for an "
            f"image of {image_size}; declare the prefix: sightline.Layer(name, 'tokens', prefix=...)"
        )
    return min(found, key=lambda grid: abs(log(grid[0] * width / (grid[1] * height))))


def _has_stride(grid: Grid, image_size: Grid) -> bool:
    """Return whether square patches of a whole number of pixels give a grid, both sides cropped or both padded to them."""
    sides = list(zip(grid, image_size))
    cropped = range(max(side // (n + 1) + 1 for n, side in sides), min(side // n for n, side in sides) + 1)
    padded = [s for s in range(1, max(image_size) + 1) if all(ceil(side / s) == n for n, side in sides)]
    return len(cropped) > 0 or len(padded) > 0
