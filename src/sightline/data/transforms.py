"""Transforms that move an image with what belongs to it.

A mask takes the pixel under the center of each new pixel, so it stays 0, 1, 255 and does not shift. A saliency map moves
as smoothly as the image, and boxes by their edges.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sightline._core.checks import check_count, check_fraction
from sightline._core.registry import Entry
from sightline.errors import SightlineError


class Saliency(tv_tensors.TVTensor):
    """A map (1, H, W), float, that goes where its image goes and keeps its values where the image's colours change."""


Fit = Literal["crop", "center", "squeeze"]
"""How an image is brought to a square, see `eval_transform`."""

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def _moves(functional: Callable[..., Any], kernel: Callable[..., Tensor]) -> None:
    """Let torchvision move maps by the kernel that moves images."""

    @F.register_kernel(functional, Saliency)
    def move(saliency: Saliency, *args: Any, **kwargs: Any) -> Saliency:
        return tv_tensors.wrap(kernel(saliency.as_subclass(Tensor), *args, **kwargs), like=saliency)


_moves(F.resize, F.resize_image)
_moves(F.resized_crop, F.resized_crop_image)
_moves(F.center_crop, F.center_crop_image)
_moves(F.horizontal_flip, F.horizontal_flip_image)
_moves(F.affine, F.affine_image)
_moves(F.rotate, F.rotate_image)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a mask (..., H, W) to a size, as torchvision's `Resize` takes it: each pixel is the one under its center.

    torchvision itself takes the pixel under the upper left corner, which shifts a mask by up to half a pixel.
    """
    planes = mask.as_subclass(Tensor).reshape(-1, *mask.shape[-2:])
    resized = F.resize_image(planes, list(size), v2.InterpolationMode.NEAREST_EXACT)
    resized = resized.reshape(*mask.shape[:-2], *resized.shape[-2:])
    return tv_tensors.wrap(resized, like=mask) if isinstance(mask, tv_tensors.TVTensor) else resized


class RandAugment(v2.RandAugment):
    """torchvision's `RandAugment`, which moves masks, boxes and saliency maps as it moves the image.

    Where an image is moved away from, it is black, a mask is 0 (background) and a map is 0. What changes colors alone leaves
    the others unchanged.

    References:
        Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2020.
    """

    def forward(self, *inputs: Any) -> Any:
        """Change an image, and move what comes with it; None stays None."""
        image, *others = inputs
        self._done: list[tuple[str, float, dict[str, Any]]] = []
        image = super().forward(image)
        move = super()._apply_image_or_video_transform
        for name, magnitude, options in self._done:
            if name in MOVES:
                others = [None if each is None else move(each, name, magnitude, **options) for each in others]
        return (image, *others) if others else image

    def _apply_image_or_video_transform(self, image: Any, transform_id: str, magnitude: float, **options: Any) -> Any:
        """Do one operation, and remember it."""
        self._done.append((transform_id, magnitude, options))
        return super()._apply_image_or_video_transform(image, transform_id, magnitude, **options)


class Resize(v2.Resize):
    """torchvision's `Resize`, with masks resized by `resize_mask`."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one input."""
        if isinstance(inpt, tv_tensors.Mask):
            return resize_mask(inpt, self.size)
        return super().transform(inpt, params)


class RandomResizedCrop(v2.RandomResizedCrop):
    """torchvision's `RandomResizedCrop`, with masks resized by `resize_mask`."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop and resize one input."""
        if isinstance(inpt, tv_tensors.Mask):
            return resize_mask(F.crop(inpt, **params), self.size)
        return super().transform(inpt, params)


def train_transform(
    size: int,
    *,
    crop: float = 0.5,
    flip: bool = True,
    rand_augment: int = 0,
    magnitude: int = 9,
    jitter: float = 0.0,
) -> v2.Compose:
    """Return the transform of a training image: a random crop, a horizontal flip, RandAugment, changed colors.

    Args:
        size: side of the square that comes out, in pixels.
        crop: least share of the image's area that a random crop keeps, in (0, 1]; 1 = no random crop, as in evaluation.
        flip: mirror every other image left to right.
        rand_augment: operations of RandAugment; 0 = none. Cubuk et al. 2020 take 2 on ImageNet.
        magnitude: how strong they are, in 0 .. 30; 9 in the paper.
        jitter: brightness, contrast and saturation change by a factor in [1 - jitter, 1 + jitter]; in [0, 1).

    Returns:
        A transform of (uint8 image, mask or None, ...) to (float32 image (3, size, size) in [0, 1], mask (size, size), ...);
        torchvision's `BoundingBoxes` and a `Saliency` go with them.

    Raises:
        SightlineError: a value is out of its range.
    """
    check_count(size=size)
    check_fraction("(0, 1]", crop=crop)
    check_fraction("[0, 1)", jitter=jitter)
    if rand_augment < 0 or not 0 <= magnitude <= 30:
        raise SightlineError(
            f"rand_augment is {rand_augment} and magnitude {magnitude}; expected a number of operations, and one in 0 .. 30"
        )
    steps: list[v2.Transform] = []
    steps += [RandomResizedCrop(size, scale=(crop, 1.0))] if crop < 1 else _fit(size)
    steps += [v2.RandomHorizontalFlip()] if flip else []
    steps += [RandAugment(rand_augment, magnitude)] if rand_augment else []
    steps += [v2.ColorJitter(jitter, jitter, jitter)] if jitter else []
    return v2.Compose([*steps, _to_float()])


def augmentation(options: Mapping[str, Any], size: int) -> v2.Compose:
    """Return `train_transform` with the options that a user gave.

    Raises:
        SightlineError: an option is unknown, of another type, or out of its range.
    """
    if "size" in options:
        raise SightlineError("size is not an option of 'augment'; the key image_size sets the side of the images")
    return Entry("augment", train_transform)(**options, size=size)


def eval_transform(size: int, fit: Fit = "crop") -> v2.Compose:
    """Return the transform of a test image: its shorter side is resized to `size`, and the centre square is kept.

    The proportions stay as the network saw them in its pretraining; what a squash would keep at the ends is lost.

    Args:
        size: side of the square that comes out, in pixels.
        fit: "crop" = as above; "center" = the shorter side is resized to `size` / 0.875 first, as is customary for ImageNet;
            "squeeze" = the whole image becomes the square.
    """
    check_count(size=size)
    if fit == "squeeze":
        return v2.Compose([Resize((size, size)), _to_float()])
    side = round(size / 0.875) if fit == "center" else size
    return v2.Compose([Resize(side), v2.CenterCrop(size), _to_float()])


def still_seen(boxes: tv_tensors.BoundingBoxes) -> tv_tensors.BoundingBoxes:
    """Return what remains of boxes (N, 4) inside their image; boxes below a pixel in width or height are dropped."""
    seen, _ = F.sanitize_bounding_boxes(F.clamp_bounding_boxes(boxes), min_size=1, min_area=1)
    return seen


def _fit(size: int) -> list[v2.Transform]:
    return [Resize(size), v2.CenterCrop(size)]


def _to_float() -> v2.Transform:
    return v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
