"""Views of an image: the eight elements of the dihedral group D4, and affine maps such as scaling."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_positive
from sightline._core.registry import Entry
from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError, unknown_name


@dataclass(frozen=True)
class View:
    """A flip (left to right), then `turns` quarter turns counterclockwise; acts on the last two dimensions."""

    flip: bool = False
    turns: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Apply the view to images or maps (..., H, W)."""
        flipped = images.flip(-1) if self.flip else images
        return torch.rot90(flipped, self.turns, (-2, -1)) if self.turns else flipped

    def inverse(self, images: Tensor) -> Tensor:
        """Undo the view: `view.inverse(view(x))` is x."""
        turned = torch.rot90(images, -self.turns, (-2, -1)) if self.turns else images
        return turned.flip(-1) if self.flip else turned

    def seen(self, size: tuple[int, int]) -> Tensor:
        """Which pixels of an image (height, width) the view shows, and `inverse` therefore gives back: (H, W) bool."""
        return torch.ones(size, dtype=torch.bool)

    @property
    def keeps_shape(self) -> bool:
        """Whether height stays height."""
        return self.turns % 2 == 0


@dataclass(frozen=True)
class AffineView(View):
    """An affine map about the image's center, in the terms and the order of torchvision's `affine`; bilinear.

    What the view shows beyond the image's border is its mirror image, so no edge appears that the image does not have.
    Both directions are differentiable. `inverse` of what the view does not show repeats the nearest that it does; `seen`
    tells the two apart.

    Args:
        flip: before everything else, as are `turns`.
        turns: quarter turns.
        angle: of the rotation, in degrees clockwise.
        translate: to the right and down, each as a fraction of the width or height in (-1, 1).
        scale: above 1 enlarges, below 1 shrinks.
        shear: along x and along y, in degrees in (-90, 90).

    Raises:
        SightlineError: a value is out of its range.
    """

    angle: float = 0.0
    translate: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("translate", "shear"):
            pair = getattr(self, name)
            if not isinstance(pair, Sequence) or len(pair) != 2:
                raise SightlineError(f"{name} is {pair!r}; expected two numbers, along x and along y")
            object.__setattr__(self, name, tuple(pair))  # YAML gives lists, which have no hash
        check_positive(scale=self.scale)
        if not all(-1 < t < 1 for t in self.translate):
            raise SightlineError(f"translate is {self.translate}; expected fractions of the image's sides in (-1, 1)")
        if not all(-90 < s < 90 for s in self.shear):
            raise SightlineError(f"shear is {self.shear}; expected degrees in (-90, 90)")

    def __call__(self, images: Tensor) -> Tensor:
        """Apply the view to images or maps (..., H, W)."""
        turned = super().__call__(images)
        return _sample(turned, self._theta(turned.shape[-2:], back=True), "reflection")

    def inverse(self, images: Tensor) -> Tensor:
        """Undo the view where it shows the image: there `view.inverse(view(x))` is x, twice interpolated."""
        return super().inverse(_sample(images, self._theta(images.shape[-2:], back=False), "border"))

    def seen(self, size: tuple[int, int]) -> Tensor:
        """Which pixels of an image (height, width) the view shows, and `inverse` therefore gives back: (H, W) bool."""
        turned = size if self.keeps_shape else size[::-1]
        grid = F.affine_grid(self._theta(turned, back=False), [1, 1, *turned], align_corners=False)
        return super().inverse((grid[0].abs() <= 1).all(-1))

    def _theta(self, size: Sequence[int], back: bool) -> Tensor:
        """(1, 2, 3): from places in the output to places in the input, both in [-1, 1], x before y.

        Args:
            size: (height, width).
            back: from the view to the image, which makes the view; else from the image to the view, which undoes it.
        """
        angle, (shear_x, shear_y) = math.radians(self.angle), map(math.radians, self.shear)
        cos, sin = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        along_x = torch.tensor([[1, -math.tan(shear_x)], [0, 1]], dtype=torch.float64)
        along_y = torch.tensor([[1, 0], [-math.tan(shear_y), 1]], dtype=torch.float64)
        forward = self.scale * rotation @ along_y @ along_x  # in pixels
        sides = torch.tensor([size[1], size[0]], dtype=torch.float64)
        forward = forward * sides / sides[:, None]  # in shares of the sides
        shift = 2 * torch.tensor(self.translate, dtype=torch.float64)[:, None]
        matrix = forward.inverse() if back else forward
        offset = -matrix @ shift if back else shift
        return torch.cat([matrix, offset], 1)[None]


def _sample(images: Tensor, theta: Tensor, beyond: Literal["reflection", "border"]) -> Tensor:
    """Images (..., H, W) read at the places that theta (1, 2, 3) gives for each of their pixels."""
    exact = at_least_float32(images)
    stacked = exact.reshape(1, -1, *images.shape[-2:])
    grid = F.affine_grid(theta.to(stacked), [1, 1, *images.shape[-2:]], align_corners=False)
    moved = F.grid_sample(stacked, grid, mode="bilinear", padding_mode=beyond, align_corners=False)
    return moved.reshape(images.shape).to(images.dtype)


IDENTITY = View()

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


# As many views as four or eight of D4, so both have the same cost.
NAMED: dict[str, tuple[View, ...]] = {
    "scaling": (IDENTITY, AffineView(scale=0.8), AffineView(scale=1.25), AffineView(scale=1.5)),
    "affine": (
        IDENTITY,
        AffineView(scale=0.8),
        AffineView(scale=1.25),
        AffineView(angle=15),
        AffineView(angle=-15),
        AffineView(shear=(15, 0)),
        AffineView(shear=(0, 15)),
        AffineView(translate=(0.1, 0.1)),
    ),
}


def choose_views(views: int | str | Sequence[Mapping[str, Any]]) -> tuple[View, ...]:
    """Return the views that a recipe names; the identity comes first.

    Args:
        views: 1, 2, 4 or 8 elements of D4; "scaling" (four views) or "affine" (eight views, of D4 the identity alone); or the
            options of one `AffineView` after another, such as `[{"scale": 0.8}, {"angle": 15, "flip": True}]`, to which the
            identity is added.

    Raises:
        SightlineError: another number or name, or options that an affine view does not have.
    """
    if isinstance(views, int):
        return dihedral_views(views)
    if isinstance(views, str):
        if views not in NAMED:
            raise unknown_name("views", views, NAMED)
        return NAMED[views]
    made = Entry("views", AffineView)
    return IDENTITY, *(made(**options) for options in views)


def dihedral_views(count: int) -> tuple[View, ...]:
    """Return the first 1, 2, 4 or 8 elements of D4, the identity first (SO-Loss, section III and Fig. 7)."""
    if count not in (1, 2, 4, 8):
        raise SightlineError(f"views is {count}; accepted are 1, 2, 4 and 8")
    return D4[:count]


def check_views(views: tuple[View, ...], image_size: tuple[int, int]) -> None:
    """Reject views that swap the sides of images that are not square."""
    height, width = image_size
    if height != width and not all(view.keeps_shape for view in views):
        raise SightlineError(f"images are {height} x {width}; eight views need square ones (four views keep the shape)")
