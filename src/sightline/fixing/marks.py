"""What people said about an image: their judgement of its map, the object, and what must not matter."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Judgement = Literal["right", "wrong", "unclear"]


@dataclass(frozen=True)
class Mark:
    """What is known of one image.

    Attributes:
        judgement: whether the map is at the right place; None = nobody said.
        object: (h, w) bool, where the object is; None = not drawn. The longest side has at most 512 px.
        avoid: (h, w) bool, what must not matter; None = not drawn.
    """

    judgement: Judgement | None = None
    object: np.ndarray | None = None
    avoid: np.ndarray | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return self.judgement is None and self.object is None and self.avoid is None

    def resized(self, height: int, width: int) -> "Mark":
        """Return the mark with both masks at another size, such as that of the image."""
        return Mark(self.judgement, _resize(self.object, height, width), _resize(self.avoid, height, width))


def _resize(mask: np.ndarray | None, height: int, width: int) -> np.ndarray | None:
    if mask is None:
        return None
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(smooth) > 127
