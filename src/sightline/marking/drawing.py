"""A drawing: what people clicked, boxed and painted on one image, and the masks that this makes."""

import io
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from sightline.fixing.marks import Judgement, Mark
from sightline.marking.mark_files import png

LayerName = Literal["object", "avoid"]
Points = tuple[tuple[float, float], ...]
SEGMENTED, PAINTED, ERASED = 1, 2, 4  # bits of a layer's pixels


@dataclass(frozen=True)
class Layer:
    """One of the two masks of an image. Positions are shares of the width and of the height, in [0, 1].

    Attributes:
        inside: points on it.
        outside: points that are not on it.
        box: x0, y0, x1, y1; None = no box.
        pixels: (h, w) uint8: what the segmenter found, what was painted and what was erased, as bits; None = nothing.
    """

    inside: Points = ()
    outside: Points = ()
    box: tuple[float, float, float, float] | None = None
    pixels: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray | None:
        """The mask (h, w) bool; None where it is empty."""
        if self.pixels is None:
            return None
        mask = ((self.pixels & (SEGMENTED | PAINTED)) != 0) & ((self.pixels & ERASED) == 0)
        return mask if mask.any() else None

    def segmented(self, mask: np.ndarray) -> "Layer":
        """Return the layer with another mask of the segmenter; what was painted and erased stays."""
        painted = np.zeros(mask.shape, np.uint8) if self.pixels is None else self.pixels & (PAINTED | ERASED)
        return replace(self, pixels=painted | mask.astype(np.uint8) * SEGMENTED)

    def painted(self, path: Points, radius: float, erase: bool, size: tuple[int, int]) -> "Layer":
        """Return the layer after a stroke of the brush or the eraser.

        Args:
            path: where the stroke went.
            radius: of the brush, as a share of the longest side.
            erase: whether the stroke erases.
            size: height and width of the mask.
        """
        pixels = np.zeros(size, np.uint8) if self.pixels is None else self.pixels.copy()
        stroke = _stroke(path, radius, size)
        pixels[stroke] &= SEGMENTED
        pixels[stroke] |= ERASED if erase else PAINTED
        return replace(self, pixels=pixels)


@dataclass(frozen=True)
class Drawing:
    """All answers and marks for one image."""

    judgement: Judgement | None = None
    object: Layer = field(default_factory=Layer)
    avoid: Layer = field(default_factory=Layer)

    @property
    def mark(self) -> Mark:
        """What a refit is told."""
        return Mark(self.judgement, self.object.mask, self.avoid.mask)

    def layer(self, name: LayerName) -> Layer:
        """Return one of the two layers."""
        return self.object if name == "object" else self.avoid

    def with_layer(self, name: LayerName, layer: Layer) -> "Drawing":
        """Return the drawing with another layer."""
        return replace(self, object=layer) if name == "object" else replace(self, avoid=layer)

    def encode(self) -> tuple[str, bytes | None, bytes | None]:
        """Return what a store keeps: JSON, and the pixels of both layers as PNG files."""
        facts: dict[str, Any] = {"judgement": self.judgement}
        for name, layer in (("object", self.object), ("avoid", self.avoid)):
            known = {"inside": layer.inside, "outside": layer.outside, "box": layer.box, "mask": layer.mask is not None}
            facts[name] = known
        files = [None if layer.pixels is None else png(layer.pixels) for layer in (self.object, self.avoid)]
        return json.dumps(facts), files[0], files[1]

    @classmethod
    def decode(cls, facts: str, object_png: bytes | None, avoid_png: bytes | None) -> "Drawing":
        """Return the drawing that `encode` made."""
        known = json.loads(facts)
        layers = {}
        for name, file in (("object", object_png), ("avoid", avoid_png)):
            inside, outside = (tuple((x, y) for x, y in known[name][side]) for side in ("inside", "outside"))
            box = known[name]["box"]
            layers[name] = Layer(inside, outside, None if box is None else tuple(box), _decode(file))
        return cls(known["judgement"], **layers)


def _decode(file: bytes | None) -> np.ndarray | None:
    """Return the pixels of a PNG file; None for None."""
    return None if file is None else np.asarray(Image.open(io.BytesIO(file)))


def _stroke(path: Points, radius: float, size: tuple[int, int]) -> np.ndarray:
    """Return where a round brush went, as (h, w) bool."""
    height, width = size
    reach = max(0.5, radius * max(size))
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    spots = [(x * width - 0.5, y * height - 0.5) for x, y in path]
    draw.line(spots, fill=1, width=max(1, round(2 * reach)))
    edge = max(0.0, reach - 0.5)  # an ellipse holds the pixels on both its ends
    for x, y in spots:
        draw.ellipse((x - edge, y - edge, x + edge, y + edge), fill=1)
    return np.array(canvas)
