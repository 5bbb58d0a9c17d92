"""Images as a page carries them: small, with the object outlined, inside the HTML file."""

import base64
import io

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d
from torchvision.transforms.v2.functional import to_pil_image

SIDE = 208  # pixels of an image: sharp at the width that the page gives it, and a few kilobytes


def enlarge(image: Tensor, side: int = SIDE) -> Tensor:
    """Scale (C, H, W) to a page's size; small images keep their pixels visible, since smoothing would invent detail."""
    height, width = image.shape[-2:]
    scale = side / max(height, width)
    size = (round(height * scale), round(width * scale))
    if scale >= 2:
        return interpolate(image[None], size=size, mode="nearest-exact")[0]
    return interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def outline(mask: Tensor | None) -> Tensor | None:
    """(2, H, W) bool: a light line along the object's border, and a dark one around it, seen on any ground."""
    if mask is None:
        return None
    region = enlarge(mask.float()[None]).round()[None]
    thin, wide = (max_pool2d(region, k, stride=1, padding=k // 2) - region for k in (5, 9))
    return torch.cat([thin, wide - thin])[:, 0] > 0


def draw_outline(image: Tensor, border: Tensor | None) -> Tensor:
    """Return the image (3, H, W) in [0, 1] with an `outline` (2, H, W) drawn on it, if there is one."""
    if border is None:
        return image
    return torch.where(border[0], torch.ones(()), torch.where(border[1], 0.35 * image, image))


def data_uri(image: Tensor, border: Tensor | None = None) -> str:
    """Return a data URI of the image (3, H, W) in [0, 1] with an `outline` drawn on it."""
    buffer = io.BytesIO()
    to_pil_image(draw_outline(image, border).clamp(0, 1)).save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
