"""Images without their object or their background, and objects on the backgrounds of other images.

The variants are those of ImageNet-9 (Xiao, Engstrom, Ilyas, Madry, "Noise or Signal: The Role of Image Backgrounds in
Object Recognition", ICLR 2021), made from masks; their names are its folders'. An image's mask is uint8, with 0 =
background, 1 = object, 255 = neither, or float, where 0.5 and more is the object. What is marked 255 never shows.
"""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from sightline._core.kernels import gaussian_blur, odd_kernel
from sightline._core.seeding import generator
from sightline.errors import SightlineError, unknown_name
from sightline.regions.boxes import tight_box

Variant = Literal[
    "original", "only_fg", "no_fg", "only_bg_b", "only_bg_t", "mixed_same", "mixed_rand", "mixed_next"
]  # fmt: skip
VARIANTS: tuple[Variant, ...] = get_args(Variant)
MIXED: tuple[Variant, ...] = ("mixed_same", "mixed_rand", "mixed_next")

Fill = Literal["tile", "inpaint"]


def regions_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Where the object is, and where the background is, bool of the masks' shape; a pixel marked 255 is in neither."""
    if masks.is_floating_point():
        return masks >= 0.5, masks < 0.5
    return masks == 1, masks == 0


def paint_over(images: Tensor, masks: Tensor) -> Tensor:
    """Images (B, C, H, W) whose objects, masks (B, 1, H, W) in [0, 1], are filled with a blur of what surrounds them."""
    background = 1 - masks
    weight = background.sum((2, 3), keepdim=True)
    mean = (images * background).sum((2, 3), keepdim=True) / weight.clamp_min(1)
    kernel = odd_kernel(0.5, min(images.shape[-2:]))
    blurred, seen = (gaussian_blur(each, kernel, kernel / 6) for each in (images * background, background))
    # Deep inside a large object nothing of its surroundings is near: there the fill tends to their mean.
    fill = (blurred + 1e-3 * mean) / (seen + 1e-3)
    return background * images + masks * fill


def is_whole(mask: Tensor, fill: Fill = "tile") -> bool:
    """Whether a mask (H, W) holds an object and leaves a background that `background_of` can fill its place with."""
    check_fill(fill)
    inside, around = regions_of(mask)
    if not (inside.any() and around.any()):
        return False
    return fill == "inpaint" or tight_box(~around) != (0, 0, mask.shape[1], mask.shape[0])


def background_of(image: Tensor, mask: Tensor, fill: Fill = "tile") -> Tensor:
    """Return the background of an image (C, H, W) alone.

    Args:
        image: uint8, or float in [0, 1].
        mask: (H, W), which `is_whole`; what is not background must not show.
        fill: "tile": the box around it is filled with the largest rectangle next to the box, over the image's full height or
            width, repeated from the image's corner (ImageNet-9's Only-BG-T); "inpaint": it is filled with a blur of what
            surrounds it, and all of the background stays.
    """
    check_fill(fill)
    covered = ~regions_of(mask)[1]
    if fill == "tile":
        return _tile(image, tight_box(covered))
    exact = image if image.is_floating_point() else image / 255
    painted = paint_over(exact[None], covered[None, None].to(exact.dtype))[0]
    return painted if image.is_floating_point() else (255 * painted).round().clamp(0, 255).to(image.dtype)


def vary(variant: Variant, image: Tensor, mask: Tensor, scene: Tensor | None = None, fill: Fill = "tile") -> Tensor:
    """Return an image (C, H, W) in one of the variants of ImageNet-9.

    | variant | what is left |
    | --- | --- |
    | original | all |
    | only_fg | the object on black |
    | no_fg | the background, with the object's shape in black |
    | only_bg_b | the background, with the object's box in black |
    | only_bg_t | the background, see `background_of` |
    | mixed_... | the object on another image's background |

    Args:
        variant: its name.
        image: uint8, or float in [0, 1].
        mask: (H, W), which `is_whole`.
        scene: (C, H, W), the other background, where the variant is a mixed one.
        fill: see `background_of`.
    """
    check_variant(variant)
    inside, around = regions_of(mask)
    if variant == "original":
        return image
    if variant == "only_fg":
        return torch.where(inside, image, 0)
    if variant == "no_fg":
        return torch.where(around, image, 0)
    if variant == "only_bg_b":
        left, top, right, bottom = tight_box(~around)
        black = image.clone()
        black[:, top:bottom, left:right] = 0
        return black
    if variant == "only_bg_t":
        return background_of(image, mask, fill)
    if scene is None:
        raise SightlineError(f"the variant {variant!r} needs a scene, and none was given")
    return torch.where(inside, image, scene)


class Backgrounds:
    """The images of a data set that lend their backgrounds to others.

    Args:
        labels: (N,) int64.
        has_mask: (N,) bool; an image without a mask lends nothing, because its object would show.
        indices: (N,) int64, each image's place in its data set, which draws are keyed by.
        read: from a row to the image (C, H, W) and its mask (H, W), all of one size.

    Attributes:
        unmarked: rows that were found to have no mark to lend, where the masks are regions to avoid.
    """

    def __init__(
        self, labels: Tensor, has_mask: Tensor, indices: Tensor, read: Callable[[int], tuple[Tensor, Tensor]]
    ) -> None:
        self.labels, self.has_mask, self.indices, self.read = labels, has_mask, indices, read
        self._barren: set[tuple[int, Fill]] = set()
        self.unmarked: set[int] = set()

    def draw(self, variant: Variant, index: int, label: int, seed: int = 0) -> Iterator[int]:
        """Yield the rows that may lend their background to the image at `index` in a mixed variant, in random order.

        "mixed_same": those of its class; "mixed_next": of the next class, the first after the last; "mixed_rand": of a class
        drawn from all with equal chances, its own too, so the background says nothing of the class, then of another.
        """
        draw = generator(seed, index, variant)
        classes = self.labels[self.has_mask].unique()
        later = classes[classes > label]
        order = {"mixed_same": [label], "mixed_next": (later if len(later) else classes)[:1].tolist()}
        for chosen in order.get(variant) or classes[torch.randperm(len(classes), generator=draw)].tolist():
            rows = ((self.labels == chosen) & self.has_mask & (self.indices != index)).nonzero().flatten()
            yield from rows[torch.randperm(len(rows), generator=draw)].tolist()

    def find(self, variant: Variant, index: int, label: int, fill: Fill = "tile", seed: int = 0) -> Tensor | None:
        """Return the background (C, H, W) for the image at `index` in a mixed variant; None if no image can lend one."""
        for row in self.draw(variant, index, label, seed):
            if (row, fill) in self._barren:
                continue
            image, mask = self.read(row)
            if is_whole(mask, fill):
                return background_of(image, mask, fill)
            self._barren.add((row, fill))
        return None


def check_variant(variant: Variant) -> None:
    """Reject another variant."""
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)


def check_fill(fill: Fill) -> None:
    """Reject another fill."""
    if fill not in get_args(Fill):
        raise unknown_name("fill", fill, get_args(Fill))


def _tile(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Return the image with its largest rectangle next to the box repeated inside the box."""
    left, top, right, bottom = box
    height, width = image.shape[-2:]
    rows, columns = (0, height), (0, width)
    if max(left, width - right) * height > max(top, height - bottom) * width:
        columns = (0, left) if left > width - right else (right, width)
    else:
        rows = (0, top) if top > height - bottom else (bottom, height)
    y = rows[0] + torch.arange(top, bottom, device=image.device) % (rows[1] - rows[0])
    x = columns[0] + torch.arange(left, right, device=image.device) % (columns[1] - columns[0])
    tiled = image.clone()
    tiled[:, top:bottom, left:right] = image[:, y[:, None], x]
    return tiled
