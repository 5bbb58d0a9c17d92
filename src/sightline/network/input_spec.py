"""What a model expects of its input."""

from dataclasses import dataclass

from torch import Tensor

from sightline._core.checks import check_count, check_number, is_number
from sightline._core.tensors import check_unit_range
from sightline.errors import SightlineError

LARGEST_SIDE = 2**14  # an image of this side takes 3 GB as numbers


@dataclass(frozen=True)
class InputSpec:
    """The normalization and size that a model was trained with, kept next to the model and not inside it.

    Args:
        mean: mean of the training images, one value per channel, for images in [0, 1].
        std: their standard deviation, one positive value per channel.
        size: (height, width) of the input in pixels.

    Examples:
        >>> spec = sl.InputSpec(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=(64, 64))
        >>> spec.normalize(torch.ones(1, 3, 64, 64)).max().item()
        2.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise SightlineError(
                f"InputSpec: mean has {len(self.mean)} values and std {len(self.std)}; expected one per channel"
            )
        check_number(**{f"InputSpec: mean {number}": value for number, value in enumerate(self.mean)})
        for std in self.std:
            if not is_number(std) or std <= 0:
                raise SightlineError(f"InputSpec: std is {self.std}; every value must be positive")
        if len(self.size) != 2:
            raise SightlineError(f"InputSpec: size is {self.size}; expected (height, width) in pixels")
        for side in self.size:
            check_count(**{"InputSpec: a side of size": side})
            if side > LARGEST_SIDE:
                raise SightlineError(f"InputSpec: size is {self.size}; expected at most {LARGEST_SIDE} pixels a side")

    def __str__(self) -> str:
        height, width = self.size
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{width} x {height} px (the shorter side is resized, the center is kept), mean {mean}, std {std}"

    def check_range(self, images: Tensor) -> None:
        """Raise if a value of the images is outside [0, 1]."""
        check_unit_range(images, "images", "because the input spec normalizes them")

    def normalize(self, images: Tensor, checked: bool = True) -> Tensor:
        """Return (x - mean) / std of images (B, C, H, W) in [0, 1]; if `checked`, raise if a value is outside."""
        if images.shape[1] != len(self.mean):
            raise SightlineError(f"images have {images.shape[1]} channels; the input spec is for {len(self.mean)}")
        if checked:
            self.check_range(images)
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return (images - mean) / std


def to_inputs(images: Tensor, input_spec: InputSpec | None) -> Tensor:
    """Return images (B, C, H, W) as the model takes them: normalized, or unchanged where there is no input spec."""
    return images if input_spec is None else input_spec.normalize(images)
