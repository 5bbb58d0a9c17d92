"""A mask from clicks: GrabCut that starts from a disc around the clicked points."""

import numpy as np

from sightline._core.optional import requires_extra
from sightline.errors import SightlineError
from sightline.localization.grabcut import cut_from

SIDE = 160  # px of the longest side on which GrabCut works: a click is answered in a fraction of a second
CERTAIN = 0.09  # radius around a click that certainly is the object, as a share of the longest side
PROBABLE = 0.33  # radius that is probably the object before the colors are known
BORDER = 0.03  # of the longest side: the rim of the image is background, except where it was clicked
ITERATIONS = 3


def segment_clicks(
    image: np.ndarray, inside: np.ndarray, outside: np.ndarray | None = None, box: np.ndarray | None = None
) -> np.ndarray:
    """Return the mask of the object that was clicked.

    GrabCut starts from discs around the points inside. Discs around the points outside certainly are background. With a
    box, all that is outside it is background, and all inside it is probably the object. Only parts that hold a point inside
    are kept; with a box alone, all parts are. Equal arguments give equal masks.

    Args:
        image: (H, W, 3) uint8.
        inside: (N, 2) xy in pixels, on the object; N may be 0 with a box.
        outside: (N, 2) xy in pixels, not on the object; None = none.
        box: (4,) xyxy in pixels, around the object; None = not known.

    Returns:
        (H, W) bool.

    Raises:
        SightlineError: an argument is not as above, or there are neither points inside nor a box.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise SightlineError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    outside = np.zeros((0, 2)) if outside is None else outside
    for name, points in (("inside", inside), ("outside", outside)):
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise SightlineError(f"{name} has shape {points.shape}; expected (N, 2), finite, xy in pixels")
    if box is not None and (box.shape != (4,) or not np.isfinite(box).all()):
        raise SightlineError(f"box has shape {box.shape}; expected (4,), finite, xyxy in pixels")
    if not len(inside) and box is None:
        raise SightlineError("inside has no point and box is None; expected a point on the object, or a box")
    with requires_extra("masks", "GrabCut"):
        import cv2

    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # Each side has its own scale, as a thin image is rounded more on its short side.
    shrink = np.array([size[0] / width, size[1] / height])
    start = _start(
        small.shape[:2], inside * shrink, outside * shrink, None if box is None else box * [*shrink, *shrink]
    )
    found = cut_from(small, start, ITERATIONS)
    if len(inside):
        found = _holding(found, inside * shrink)
    if scale == 1:
        return found
    soft = cv2.GaussianBlur(found.astype(np.float32), (0, 0), 0.7)  # else the small pixels show as steps
    for values in (soft, found.astype(np.float32)):  # the blur may remove an object of a few pixels
        mask = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        if mask.any():
            break
    return np.asarray(mask)


def _start(size: tuple[int, ...], inside: np.ndarray, outside: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Return GrabCut's start: background, object, probably background or probably object, for each pixel."""
    import cv2

    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    longest = max(height, width)

    def near(points: np.ndarray, radius: float) -> np.ndarray:
        found = np.zeros((height, width), bool)
        for x, y in points:
            found |= np.hypot(columns - x, rows - y) <= max(radius * longest, 0.71)
        return found

    if box is None:
        start = np.where(near(inside, PROBABLE), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        edge = max(1, round(BORDER * longest))
        start[:edge], start[-edge:], start[:, :edge], start[:, -edge:] = (cv2.GC_BGD,) * 4
    else:
        within = (rows >= box[1]) & (rows < box[3]) & (columns >= box[0]) & (columns < box[2])
        start = np.where(within, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    # Where discs of both kinds meet, the nearer point decides.
    certain, excluded = near(inside, CERTAIN), near(outside, CERTAIN)
    if len(inside) and len(outside):
        to_inside, to_outside = (
            np.min([np.hypot(columns - x, rows - y) for x, y in points], axis=0) for points in (inside, outside)
        )
        certain &= to_inside <= to_outside
        excluded &= to_outside < to_inside
    start[certain] = cv2.GC_FGD
    start[excluded] = cv2.GC_BGD
    return start


def _holding(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the connected parts of a mask that hold one of the points; the whole mask where none does."""
    import cv2

    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    columns, rows = np.clip(np.floor(points).astype(int).T, 0, [[mask.shape[1] - 1], [mask.shape[0] - 1]])
    held = set(parts[rows, columns].tolist()) - {0}
    return np.isin(parts, list(held)) if held else mask
