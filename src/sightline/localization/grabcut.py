"""GrabCut: a mask from a box, by the colours inside and outside of it (Rother et al., SIGGRAPH 2004)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sightline._core.checks import check_count
from sightline._core.optional import requires_extra
from sightline._core.tensors import check_finite, check_pixels, check_shape
from sightline.errors import SightlineError

MARGIN = 0.05  # of each side, outside the box that stands for "somewhere around the centre"
CENTER = 0.1  # radius of the disc around the center that counts as the object, as a share of the shorter side
COMPONENTS = 5  # Gaussians in each of GrabCut's two colour models, which need as many pixels


def grabcut(
    images: Tensor,
    boxes: Tensor | None = None,
    points: Sequence[Tensor] | None = None,
    *,
    iterations: int = 5,
) -> Tensor:
    """Masks of the objects in boxes, by OpenCV's GrabCut.

    What is outside a box is background, what is inside is probably the object, and a point certainly is the object.
    Equal arguments give equal masks.

    Where there is nothing to tell apart (the image has one colour, or fewer than five pixels are inside or outside the
    box) or no pixel is left to the object, the mask is the box itself. A box without a pixel gives an empty mask, a box
    that covers the image a full one.

    Args:
        images: (B, 3, H, W) in [0, 1].
        boxes: (B, 4) xyxy in pixels, clipped to the image; a pixel is in a box if its centre is. None = all but a twentieth of
            the image at each side, widened to hold the points.
        points: for each image (N, 2) xy in pixels, on the object; N may be 0. Those outside the image or its box are left
            out.
        iterations: of re-estimating the colours and cutting.

    Returns:
        (B, H, W) uint8 on the images' device, 1 = object.

    Raises:
        SightlineError: an argument is not as above.
    """
    check_pixels(images, change="colors are clustered")
    if images.shape[1] != 3:
        raise SightlineError(f"images have {images.shape[1]} channels; expected 3")
    if boxes is not None:
        check_shape(boxes, "boxes", (len(images), 4), meaning="xyxy in pixels")
        check_finite(boxes, "boxes")
    if points is not None and (len(points) != len(images) or any(p.ndim != 2 or p.shape[1] != 2 for p in points)):
        raise SightlineError(f"points are {[tuple(p.shape) for p in points]}; expected (N, 2) for each of the images")
    check_count(iterations=iterations)
    pixels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    masks = []
    for number, image in enumerate(pixels):
        marked = np.zeros((0, 2)) if points is None else points[number].detach().double().cpu().numpy()
        box = _around_the_centre(image, marked) if boxes is None else boxes[number].detach().double().cpu().numpy()
        masks.append(_cut(image, box, marked, iterations))
    return torch.from_numpy(np.stack(masks)).to(images.device)


def center_points(size: Sequence[int]) -> Tensor:
    """Return the pixels (N, 2) xy of a disc around the center of an image (height, width)."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    near = (x - width / 2) ** 2 + (y - height / 2) ** 2 <= (CENTER * min(height, width)) ** 2
    return torch.stack([x[near], y[near]], 1)


def _cut(image: np.ndarray, box: np.ndarray, points: np.ndarray, iterations: int) -> np.ndarray:
    """Return the mask (H, W) uint8 of one image (H, W, 3) uint8."""
    with requires_extra("masks", "GrabCut"):
        import cv2

    height, width = image.shape[:2]
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))
    trimap = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    columns, rows = np.floor(points).astype(int).T
    real = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns[real], rows[real]
    trimap[rows, columns] = np.where(inside[rows, columns], cv2.GC_FGD, cv2.GC_BGD)
    return cut_from(image, trimap, iterations).astype(np.uint8)


def cut_from(image: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """Return the object (H, W) bool of an image (H, W, 3) uint8 by GrabCut from a start, OpenCV's class of each pixel.

    It is the start itself where there are too few pixels to tell colors apart, or nothing is left of the object.
    """
    import cv2

    probable = (start == cv2.GC_FGD) | (start == cv2.GC_PR_FGD)
    if min(probable.sum(), (~probable).sum()) < COMPONENTS or (image == image[:1, :1]).all():
        return probable
    cut = start.copy()
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # k-means draws where the color models start
    try:
        cv2.grabCut(image, cut, (0, 0, 0, 0), *models, iterations, cv2.GC_INIT_WITH_MASK)  # the mask, no rectangle
    except cv2.error:  # the pixels of one region ran out under way
        return probable
    found = (cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)
    return found if found.any() else probable


def _around_the_centre(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the box (4,) within a margin of the image's border, widened to hold the points."""
    height, width = image.shape[:2]
    box = np.array([MARGIN * width, MARGIN * height, (1 - MARGIN) * width, (1 - MARGIN) * height])
    if not len(points):
        return box
    return np.concatenate(
        [np.minimum(box[:2], np.floor(points.min(0))), np.maximum(box[2:], np.floor(points.max(0)) + 1)]
    )
