"""Marks on an image, in addition to its content: text, a ruler, a patch, a border, JPEG artefacts, another brightness."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from colorsys import hsv_to_rgb
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sightline._core.checks import check_choice, check_fraction, check_positive
from sightline._core.registry import Registry
from sightline.errors import SightlineError

Place = Literal["random", "corner", "top_left", "top_right", "bottom_left", "bottom_right"]
Color = tuple[int, int, int]

CORNERS = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}  # (down, across)
MARGIN = 0.02  # of the side, between a mark in a corner and the edges

MARKS: "Registry[Mark]" = Registry("mark")


class Mark(ABC):
    """A mark that can be put on any image.

    Attributes:
        variant: the option in which the marks of two classes differ; each class has its own value of it.
    """

    variant: ClassVar[str]

    @abstractmethod
    def put(self, image: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the image (3, H, W) uint8 with the mark, and the pixels (H, W) bool that the mark can have changed."""

    @staticmethod
    @abstractmethod
    def value(number: int, count: int) -> Any:
        """Return the value of the option `variant` for the class of that number among so many."""


class _Painted(Mark):
    """A mark in a color that covers some pixels.

    Args:
        color: red, green and blue in 0 .. 255.
        size: of the mark, as a share of the image's shorter side, in (0, 1].
        strength: opacity in (0, 1].
    """

    variant = "color"

    def __init__(self, color: Color, size: float, strength: float) -> None:
        check_fraction("(0, 1]", size=size, strength=strength)
        if not all(0 <= value <= 255 for value in color):
            raise SightlineError(f"color is {list(color)}; expected red, green and blue in 0 .. 255")
        self.color, self.size, self.strength = tuple(color), size, strength

    @staticmethod
    def value(number: int, count: int) -> Any:
        """Return a different color for each class."""
        return tuple(round(255 * part) for part in hsv_to_rgb(number / count, 1, 1))

    def plate(self, *size: int) -> Tensor:
        """Return the color as an image (3, h, w) uint8."""
        return torch.tensor(self.color, dtype=torch.uint8)[:, None, None].repeat(1, *size)


class _Placed(_Painted):
    """A mark at one place in the central square of the image, which is what evaluation shows.

    Args:
        place: "random", "corner" = one of the four at random, or one corner, in the central square of the image.
    """

    def __init__(self, color: Color, size: float, strength: float, place: Place) -> None:
        super().__init__(color, size, strength)
        check_choice(Place, place=place)
        self.place = place

    @abstractmethod
    def layer(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the colors (3, h, w) uint8 of the mark and its cover (h, w) in [0, 1], for a square of that side."""

    def put(self, image: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the image with the mark at its place."""
        height, width = image.shape[-2:]
        side = min(height, width)
        colors, cover = self.layer(side)
        free = [side - length for length in cover.shape]
        *shares, corner = torch.rand(3, generator=draw).tolist()
        if self.place == "random":
            spot = [round(share * most) for share, most in zip(shares, free)]
        else:
            far = CORNERS[self.place] if self.place in CORNERS else [*CORNERS.values()][int(4 * corner)]
            gaps = [min(round(MARGIN * side), most) for most in free]
            spot = [most - gap if end else gap for end, most, gap in zip(far, free, gaps)]
        top, left = (begin + (length - side) // 2 for begin, length in zip(spot, (height, width)))
        here = slice(top, top + cover.shape[0]), slice(left, left + cover.shape[1])
        alpha, layer = torch.zeros(height, width), image.clone()
        alpha[here], layer[:, *here] = self.strength * cover, colors
        return _blend(image, layer, alpha), alpha > 0


@MARKS.register("text")
class Text(_Placed):
    """A line of text, such as a date stamp or a tag, in Pillow's own font.

    Args:
        text: the line.
        size: height of the font as a share of the shorter side; smaller where the line would not fit.
    """

    variant = "text"

    def __init__(
        self,
        text: str,
        size: float = 0.12,
        strength: float = 1.0,
        place: Place = "corner",
        color: Color = (255, 140, 0),
    ) -> None:
        super().__init__(color, size, strength, place)
        if not text.strip():
            raise SightlineError("text is empty; expected a line of text")
        self.text = text

    @staticmethod
    def value(number: int, count: int) -> Any:
        """Return "A", "B", ...; "AA" follows "Z"."""
        letters = ""
        while number >= 0:
            number, last = divmod(number, 26)
            letters, number = chr(ord("A") + last) + letters, number - 1
        return letters

    def layer(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the letters alone."""
        cover = self._letters(max(4, round(self.size * side)))
        longest = max(cover.shape)
        if longest > side:
            cover = self._letters(max(1, int(self.size * side * side / longest)))[:side, :side]
        return self.plate(*cover.shape), cover

    def _letters(self, height: int) -> Tensor:
        font = ImageFont.load_default(height)
        left, top, right, bottom = (round(edge) for edge in font.getbbox(self.text))
        plate = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(plate).text((-left, -top), self.text, fill=255, font=font)
        return torch.from_numpy(np.array(plate)).float() / 255


@MARKS.register("ruler")
class Ruler(_Placed):
    """A ruler: a bar in a color with black ticks, an eighth as high as it is long.

    Args:
        size: length as a share of the shorter side.
        color: of the bar.
    """

    def __init__(self, color: Color, size: float = 0.5, strength: float = 1.0, place: Place = "corner") -> None:
        super().__init__(color, size, strength, place)

    def layer(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the bar."""
        length = max(1, round(self.size * side))
        height = max(1, length // 8)
        bar = self.plate(height, length)
        step = max(2, length // 10)
        bar[:, : max(1, height // 2), step // 2 :: step] = 0
        return bar, torch.ones(height, length)


@MARKS.register("patch")
class Patch(_Placed):
    """A square patch of one color.

    Args:
        size: side as a share of the shorter side of the image.
    """

    def __init__(self, color: Color, size: float = 0.15, strength: float = 1.0, place: Place = "corner") -> None:
        super().__init__(color, size, strength, place)

    def layer(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the patch."""
        length = max(1, round(self.size * side))
        return self.plate(length, length), torch.ones(length, length)


@MARKS.register("border")
class Border(_Painted):
    """A border of one color along all edges of the image.

    Args:
        size: width as a share of the shorter side, below a half.
    """

    def __init__(self, color: Color, size: float = 0.04, strength: float = 1.0) -> None:
        super().__init__(color, size, strength)
        if size >= 0.5:
            raise SightlineError(f"size is {size}; expected less than half of the shorter side")

    def put(self, image: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the image with the border."""
        height, width = image.shape[-2:]
        wide = max(1, round(self.size * min(height, width)))
        alpha = torch.full((height, width), self.strength)
        alpha[wide : height - wide, wide : width - wide] = 0
        return _blend(image, self.plate(height, width), alpha), alpha > 0


@MARKS.register("jpeg")
class Jpeg(Mark):
    """The artefacts of JPEG, as the compression of one source leaves them; every pixel can have changed.

    Args:
        quality: in 1 .. 95; less = stronger artefacts.
    """

    variant = "quality"

    def __init__(self, quality: int) -> None:
        if not 1 <= quality <= 95:
            raise SightlineError(f"quality is {quality}; expected a number in 1 .. 95")
        self.quality = quality

    @staticmethod
    def value(number: int, count: int) -> Any:
        """Return qualities from 10 to 90 in equal steps."""
        return round(10 + 80 * number / max(1, count - 1))

    def put(self, image: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the image after it was compressed."""
        file = io.BytesIO()
        F.to_pil_image(image).save(file, "JPEG", quality=self.quality)
        with Image.open(file) as saved:
            return F.pil_to_tensor(saved.convert("RGB")), torch.ones(image.shape[-2:], dtype=torch.bool)


@MARKS.register("brightness")
class Brightness(Mark):
    """Another brightness, as the lamp or the scanner of one source has it; every pixel can have changed.

    Args:
        factor: that each value is multiplied by, above 0.
    """

    variant = "factor"

    def __init__(self, factor: float) -> None:
        check_positive(factor=factor)
        self.factor = factor

    @staticmethod
    def value(number: int, count: int) -> Any:
        """Return factors from 0.6 to 1.4 in equal steps."""
        return 0.6 + 0.8 * number / max(1, count - 1)

    def put(self, image: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the image, brighter or darker."""
        bright = (self.factor * image.float()).round().clamp(0, 255).to(torch.uint8)
        return bright, torch.ones(image.shape[-2:], dtype=torch.bool)


def make_mark(options: Mapping[str, Any]) -> Mark:
    """Return the mark of a `kind` and its options.

    Raises:
        SightlineError: there is no kind, or it has no such option.
    """
    if "kind" not in options:
        raise SightlineError(f"a mark is {dict(options)}; expected a kind: {', '.join(MARKS.names())}")
    return MARKS.create(options["kind"], **{name: value for name, value in options.items() if name != "kind"})


def make_variants(options: Mapping[str, Any], count: int) -> list[Mark]:
    """Return a mark of one kind for each of so many classes, which differ in the option `variant` of the kind.

    Raises:
        SightlineError: the options set that one, so all marks would be equal.
    """
    if "kind" not in options:
        return [make_mark(options)]
    kind: Any = MARKS[options["kind"]].factory
    if kind.variant in options:
        raise SightlineError(
            f"mark sets {kind.variant!r}, so all classes would have the same mark; pass `marks`, one for each class"
        )
    return [make_mark({**options, kind.variant: kind.value(number, count)}) for number in range(count)]


def _blend(image: Tensor, layer: Tensor, alpha: Tensor) -> Tensor:
    """Blend the layer (3, H, W) over the image with an opacity (H, W); where the opacity is 0, the image is unchanged."""
    mixed = (alpha * layer.float() + (1 - alpha) * image.float()).round().to(torch.uint8)
    return torch.where(alpha > 0, mixed, image)
