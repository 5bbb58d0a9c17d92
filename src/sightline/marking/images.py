"""The images as the page shows them, and at the size of the masks."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from sightline.explainers import resize_maps
from sightline.fixing.protocol import MarkingData
from sightline.marking.drawing import Drawing
from sightline.marking.mark_files import png
from sightline.reporting.overlay import blend

MASK_SIDE = 512  # px of the longest side of a mask
SHOWN_SIDE = 1024  # px of the longest side of an image on the page
KEPT = 16  # images that stay in memory
OBJECT, SUGGESTED, AVOID = (0, 200, 120), (255, 255, 255), (230, 40, 40)
T = TypeVar("T")


class Images:
    """Reads images and draws maps and masks over them; keeps the last ones in memory.

    Args:
        data: the images.
    """

    def __init__(self, data: MarkingData) -> None:
        self.data = data
        self._kept: OrderedDict[tuple[str, int], object] = OrderedDict()
        self._lock = threading.RLock()

    def at_mask_size(self, index: int) -> np.ndarray:
        """Return an image as (h, w, 3) uint8 with at most 512 px on the longest side."""
        return self._keep("small", index, lambda: _shrink(self.data.image(index), MASK_SIDE))

    def jpeg(self, index: int) -> bytes:
        """Return an image as a JPEG file with at most 1024 px on the longest side."""
        return self._keep("image", index, lambda: _jpeg(_shrink(self.data.image(index), SHOWN_SIDE)))

    def overlay(self, index: int) -> bytes:
        """Return the model's saliency map over the gray image, as a JPEG file."""

        def draw() -> bytes:
            image = torch.tensor(self.at_mask_size(index)).permute(2, 0, 1)[None] / 255
            saliency = torch.as_tensor(np.asarray(self.data.map(index), dtype=np.float32))[None]
            resized = resize_maps(saliency, (image.shape[2], image.shape[3])).clamp(0, 1)
            return _jpeg((blend(image, resized)[0] * 255).round().byte().permute(1, 2, 0).numpy())

        return self._keep("overlay", index, draw)

    def suggestion(self, index: int) -> np.ndarray | None:
        """Return the suggested mask at the size of the masks; None where there is none."""

        def suggest() -> np.ndarray | None:
            mask = self.data.suggest(index)
            if mask is None or not mask.any():
                return None
            height, width = self.at_mask_size(index).shape[:2]
            smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(smooth) > 127

        return self._keep("suggestion", index, suggest)

    def masks(self, index: int, drawing: Drawing) -> bytes:
        """Return what was drawn as a transparent PNG: the object green, the suggestion white, what must not matter red."""
        height, width = self.at_mask_size(index).shape[:2]
        pixels = np.zeros((height, width, 4), np.uint8)
        if (mask := drawing.object.mask) is not None:
            _paint(pixels, mask, OBJECT, 45)
        elif (suggested := self.suggestion(index)) is not None:
            _paint(pixels, suggested, SUGGESTED, 0)
        if (avoided := drawing.avoid.mask) is not None:
            _paint(pixels, avoided, AVOID, 80)
        return png(pixels)

    def _keep(self, kind: str, index: int, make: Callable[[], T]) -> T:
        """Return what `make` returns, from memory where it is there; one image at a time is made."""
        with self._lock:
            if (kind, index) not in self._kept:
                self._kept[kind, index] = make()
                while len(self._kept) > KEPT * 4:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((kind, index))
            return self._kept[kind, index]  # type: ignore[return-value]


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _paint(pixels: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], opacity: int) -> None:
    """Fill a mask lightly and draw its border, dark outside and colored inside, so it is seen on any image."""
    import cv2

    small = mask.astype(np.uint8)
    thickness = max(1, round(max(mask.shape) / 256))
    inner = small - cv2.erode(small, np.ones((3, 3), np.uint8), iterations=thickness, borderValue=0)
    outer = cv2.dilate(small, np.ones((3, 3), np.uint8), iterations=thickness) - small
    pixels[mask] = (*color, opacity)
    pixels[outer > 0] = (0, 0, 0, 160)
    pixels[inner > 0] = (*color, 255)
