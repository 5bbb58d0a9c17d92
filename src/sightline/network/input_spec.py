"""What a model expects of its input."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.errors import SightlineError


@dataclass(frozen=True)
class InputSpec:
    """The normalisation and size that a model was trained with; it lives beside the model, never inside it.

    Args:
        mean: one value a channel, for images in [0, 1].
        std: one positive value a channel, for images in [0, 1].
        size: (height, width) in pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise SightlineError(
                f"InputSpec: mean has {len(self.mean)} values and std {len(self.std)}; give one a channel"
            )
        if any(s <= 0 for s in self.std):
            raise SightlineError(f"InputSpec: std is {self.std}; every value must be positive")

    def normalize(self, images: Tensor) -> Tensor:
        """(x - mean) / std, for images (B, C, H, W) in [0, 1]; refuses what lies outside."""
        if images.shape[1] != len(self.mean):
            raise SightlineError(f"images have {images.shape[1]} channels; the input spec is for {len(self.mean)}")
        low, high = torch.aminmax(images.detach())
        if low < -1e-4 or high > 1 + 1e-4:  # also False for NaN, which check_images refuses
            raise SightlineError(
                f"images range over [{low:.3g}, {high:.3g}]; with an input spec they must lie in [0, 1] "
                "(they are normalised inside)"
            )
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return (images - mean) / std
