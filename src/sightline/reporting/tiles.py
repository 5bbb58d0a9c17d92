"""A grid of images with captions, drawn by Pillow."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from sightline.reporting.thumbnails import enlarge

SIDE = 300  # pixels of the longer side of an image
GAP, MARGIN = 8, 12  # pixels between images, and around all of them
LETTERS = 20  # pixels, height of a line of text
INK, FAINT = "#0f172a", "#64748b"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_tiles(columns: Sequence[tuple[str, Tensor | None]], titles: Sequence[str]) -> Image.Image:
    """Draw one column per entry and one row per image.

    Args:
        columns: Caption and images (B, C, H, W) in [0, 1], C = 1 or 3. None writes that the method is not defined. The
            first entry has images.
        titles: One per row, written along the left side; empty = none.
    """
    first = columns[0][1]
    assert first is not None
    height, width = enlarge(first[0], SIDE).shape[-2:]
    left, top = MARGIN + (LETTERS + GAP if titles else 0), MARGIN + LETTERS + GAP
    right, bottom = left + len(columns) * (width + GAP) - GAP, top + len(first) * (height + GAP) - GAP
    page = Image.new("RGB", (right + MARGIN, bottom + MARGIN), "white")
    for column, (caption, images) in enumerate(columns):
        x = left + column * (width + GAP)
        page.paste(_text(caption, width, INK), (x, MARGIN))
        for row in range(len(first)):
            tile = _undefined(width, height) if images is None else _image(images[row])
            page.paste(tile, (x, top + row * (height + GAP)))
    for row, title in enumerate(titles):
        page.paste(_text(title, height, INK).rotate(90, expand=True), (MARGIN, top + row * (height + GAP)))
    return page


def _image(image: Tensor) -> Image.Image:
    return to_pil_image(enlarge(image, SIDE).clamp(0, 1).expand(3, -1, -1))


def _text(text: str, width: int, color: str) -> Image.Image:
    """Return one centered line of text, shortened to the width."""
    line, font = Image.new("RGB", (width, LETTERS), "white"), _font(LETTERS - 5)
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}...") > width:
            text = text[:-1]
        text = f"{text}..."
    ImageDraw.Draw(line).text((width / 2, LETTERS / 2), text, color, font, anchor="mm")
    return line


def _undefined(width: int, height: int) -> Image.Image:
    tile = Image.new("RGB", (width, height), "white")
    for number, text in enumerate(("not defined", "for this model")):
        tile.paste(_text(text, width, FAINT), (0, height // 2 + (number - 1) * LETTERS))
    return tile


def _font(size: int) -> Font:
    """Return DejaVu where the system has it, else Pillow's own font, which has ASCII letters only."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
