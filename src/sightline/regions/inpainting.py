"""Fill a region of an image from what surrounds it, and copy one from another image."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from sightline._core.optional import requires_extra

RADIUS = 3  # pixels around a missing one that its color is made of
MARGIN = 2  # pixels by which a region is widened, because resizing blurs a mark over its edge


def widen(regions: Tensor, margin: int = MARGIN) -> Tensor:
    """Return regions (B, H, W) bool with all pixels that are at most so many rows and columns away."""
    return max_pool2d(regions[:, None].float(), 2 * margin + 1, 1, margin)[:, 0] > 0


def inpaint(images: Tensor, regions: Tensor) -> Tensor:
    """Return images whose regions are filled from their surroundings alone.

    It is OpenCV's inpainting by Navier-Stokes (Bertalmio et al., CVPR 2001).

    Args:
        images: (B, C, H, W) float, of any range.
        regions: (B, H, W) bool; an image does not change where its region is empty or covers all of it.
    """
    with requires_extra("masks", "inpainting a region"):
        import cv2

    filled = images.clone()
    for row in (regions.flatten(1).any(1) & ~regions.flatten(1).all(1)).nonzero().flatten().tolist():
        missing = regions[row].cpu().numpy().astype(np.uint8)
        for channel, values in enumerate(images[row].detach().float().cpu().numpy()):
            known = values[missing == 0]
            start = np.where(missing == 1, known.mean(), values)  # OpenCV reads a little of what it replaces
            painted = cv2.inpaint(start, missing, RADIUS, cv2.INPAINT_NS).clip(known.min(), known.max())
            filled[row, channel] = torch.where(regions[row], torch.from_numpy(painted).to(images), images[row, channel])
    return filled


def paste(images: Tensor, others: Tensor, regions: Tensor) -> Tensor:
    """Return images (B, C, H, W) with the regions (B, H, W) bool of other images."""
    return torch.where(regions[:, None], others, images)
