"""Views of an image: the eight elements of the dihedral group D4."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.errors import SightlineError


@dataclass(frozen=True)
class View:
    """A flip (left to right), then `turns` quarter turns counterclockwise; acts on the last two dimensions."""

    flip: bool
    turns: int

    def __call__(self, images: Tensor) -> Tensor:
        """The view of images or maps (..., H, W)."""
        flipped = images.flip(-1) if self.flip else images
        return torch.rot90(flipped, self.turns, (-2, -1)) if self.turns else flipped

    def inverse(self, images: Tensor) -> Tensor:
        """Undo the view: `view.inverse(view(x))` is x."""
        turned = torch.rot90(images, -self.turns, (-2, -1)) if self.turns else images
        return turned.flip(-1) if self.flip else turned

    @property
    def keeps_shape(self) -> bool:
        """Whether height stays height."""
        return self.turns % 2 == 0


IDENTITY = View(False, 0)

# First those that keep the shape (identity, flip left to right, flip upside down, half turn), then those that swap sides.
D4 = (
    IDENTITY,
    View(True, 0),
    View(True, 2),
    View(False, 2),
    View(False, 1),
    View(False, 3),
    View(True, 1),
    View(True, 3),
)


def dihedral_views(count: int) -> tuple[View, ...]:
    """The first 1, 2, 4 or 8 elements of D4, the identity first (SO-Loss, section III and Fig. 7)."""
    if count not in (1, 2, 4, 8):
        raise SightlineError(f"views is {count}; accepted are 1, 2, 4 and 8")
    return D4[:count]


def check_views(views: tuple[View, ...], image_size: tuple[int, int]) -> None:
    """Refuse views that swap the sides of images that are not square."""
    height, width = image_size
    if height != width and not all(view.keeps_shape for view in views):
        raise SightlineError(f"images are {height} x {width}; eight views need square ones (four views keep the shape)")
