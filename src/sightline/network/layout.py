"""How the output of a layer is laid out, and the output as a feature map."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sightline.errors import SightlineError

Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Layer:
    """A target layer that declares how its output is laid out.

    Args:
        name: the module's name on the model, as in `model.named_modules()`.
        layout: `"channels_first"` (B, C, h, w), `"channels_last"` (B, h, w, C) or `"tokens"` (B, prefix + h * w, C).
        prefix: for tokens, how many of them at the start stand for no place (class and register tokens).
    """

    name: str
    layout: Layout = "channels_first"
    prefix: int = 0


def to_spatial(layer: Layer, raw: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return what a layer gave as activations (B, C, h, w)."""
    expected = 3 if layer.layout == "tokens" else 4
    if raw.ndim != expected:
        raise SightlineError(
            f"layer {layer.name!r} returned shape {tuple(raw.shape)}, which is not {layer.layout}; choose another layer, "
            "or declare its layout: sightline.Layer(name, layout=..., prefix=...)"
        )
    if layer.layout == "channels_first":
        return raw
    if layer.layout == "channels_last":
        return raw.permute(0, 3, 1, 2)
    tokens = raw[:, layer.prefix :]
    height = round((tokens.shape[1] * image_size[0] / image_size[1]) ** 0.5)
    width = tokens.shape[1] // max(height, 1)
    if height * width != tokens.shape[1] or height == 0:
        raise SightlineError(
            f"layer {layer.name!r} has {tokens.shape[1]} tokens after {layer.prefix} prefix tokens, which is no grid for an "
            f"image of {image_size}; declare the prefix: sightline.Layer(name, 'tokens', prefix=...)"
        )
    return tokens.transpose(1, 2).unflatten(2, (height, width))
