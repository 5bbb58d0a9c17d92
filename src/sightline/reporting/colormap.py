"""The colors of a saliency map: 256 colors of plasma, interpolated between 16 of them."""

import numpy as np
import torch
from torch import Tensor

# Plasma is perceptually uniform and, unlike inferno or viridis, saturated from end to end. Over a gray image, color is
# relevance and gray is the image.
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
