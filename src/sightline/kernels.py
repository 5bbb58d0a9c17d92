"""Sizes of smoothing kernels, as users give them."""

from sightline.errors import SightlineError


def odd_kernel(blur: int | float | None, side: int, default: float = 23 / 224) -> int:
    """A blur's kernel in pixels for an image of a given side.

    Args:
        blur: None = `default` of the side; int = pixels; float = fraction of the side; 0 = no blur.
        side: the image's shorter side in pixels.
        default: the fraction that None stands for.

    Returns:
        0, or an odd size, cut to the largest odd number below the side (reflect padding allows no more).
    """
    if isinstance(blur, bool) or not isinstance(blur, int | float | None) or (blur is not None and not blur >= 0):
        raise SightlineError(
            f"blur is {blur!r}; expected None, pixels (int >= 0) or a fraction of the side (float >= 0)"
        )
    if isinstance(blur, float) and blur > 1:
        raise SightlineError(f"blur is {blur}; a float is a fraction of the side, at most 1 (pixels are an int)")
    pixels = (default if blur is None else blur) * side if blur is None or isinstance(blur, float) else blur
    if pixels == 0:
        return 0
    # An even size rounds up, as 22.4 of 224 pixels is the paper's 23.
    odd = 2 * int(pixels // 2) + 1
    return min(odd, 2 * ((side - 2) // 2) + 1)
