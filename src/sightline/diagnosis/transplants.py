"""Which part of an image decides? One thing at a time is taken from an image of another class: how many answers follow it?"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur, pil_to_tensor, to_pil_image

from sightline._core.progress import bar
from sightline._core.shared_work import processes
from sightline.diagnosis.checks import background_alone, draw_partners, swapped_background
from sightline.diagnosis.properties import file_properties, pixel_properties, sharpness
from sightline.localization.annotation import Annotated
from sightline.metrics import Scorer
from sightline.network.input_spec import InputSpec
from sightline.statistics.pairs import holm

GRID = 4  # cells of an image in each direction
BLURS = (0.0, 0.5, 1.0, 2.0, 3.0)  # standard deviations in pixels
BACKGROUND = "the background as a whole"
BLUR, COMPRESSION = "blur", "JPEG compression"
SHARPER = 0.8  # share of an image's sharpness below which its donor counts as blurred
PLACES = ("top", "upper middle", "lower middle", "bottom"), ("left", "middle left", "middle right", "right")


@dataclass(frozen=True)
class Donors:
    """Images that give something: pixels, objects and the quality of their JPEG files (NaN = none)."""

    images: Tensor
    regions: Tensor
    quality: Tensor

    def of(self, rows: Tensor) -> "Donors":
        """Return some of them."""
        return Donors(self.images[rows], self.regions[rows], self.quality[rows])


Change = Callable[[Tensor, Tensor, Donors], Tensor]
"""(images, regions, donors) -> the images with one thing taken from the donors."""


@dataclass(frozen=True)
class Transplant:
    """What answers do when one thing is taken from an image of another class.

    Attributes:
        name: what is taken.
        flips: share of the images whose answer becomes the donor's.
        control: share that gets this answer when the same is taken from an image of the same class.
        p: probability of such a difference by chance, after Holm's correction for all that was taken; 1 at most.
        n: number of images whose own answer is another one than their donor's.
    """

    name: str
    flips: float
    control: float
    p: float
    n: int

    @property
    def effect(self) -> float:
        """The share of the flips that are more than the control's."""
        return self.flips - self.control


def cells() -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the cells along the border of an image, by name and place."""
    for y in range(GRID):
        for x in range(GRID):
            if y in (0, GRID - 1) or x in (0, GRID - 1):
                corner = " corner" if y in (0, GRID - 1) and x in (0, GRID - 1) else ""
                yield f"a mark in the {PLACES[0][y]} {PLACES[1][x]}{corner}", (y, x)


def paste_cell(place: tuple[int, int]) -> Change:
    """Take what is in a cell, except where either image has its object."""

    def change(images: Tensor, regions: Tensor, donors: Donors) -> Tensor:
        height, width = images.shape[-2:]
        rows, columns = (
            slice(round(at * side / GRID), round((at + 1) * side / GRID)) for at, side in zip(place, (height, width))
        )
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[rows, columns] = True
        return torch.where((inside & (regions == 0))[:, None], background_alone(donors.images, donors.regions), images)

    return change


def take_background(images: Tensor, regions: Tensor, donors: Donors) -> Tensor:
    """Take the whole background."""
    return swapped_background(images, regions, donors.images, donors.regions)


def take_colors(images: Tensor, regions: Tensor, donors: Donors) -> Tensor:
    """Take brightness and color cast: the means of the channels outside of the objects."""

    def means(some: Tensor, where: Tensor) -> Tensor:
        found = pixel_properties(some, where)
        red, blue = found["red cast"], found["blue cast"]
        return torch.stack([red, -red - blue, blue], 1) + found["brightness"][:, None]

    shift = means(donors.images, donors.regions) - means(images, regions)
    return (images + shift[..., None, None]).clamp(0, 1)


def take_blur(images: Tensor, regions: Tensor, donors: Donors) -> Tensor:
    """Take the blur: the sharper image is blurred until it is about as sharp as its donor."""
    wanted = sharpness(donors.images.mean(1))
    ways = torch.stack([images if s == 0 else gaussian_blur(images, [13, 13], [s, s]) for s in BLURS])
    distance = torch.stack([(sharpness(way.mean(1)) - wanted).abs() for way in ways])
    return ways[distance.argmin(0), torch.arange(len(images))]


def take_compression(images: Tensor, regions: Tensor, donors: Donors) -> Tensor:
    """Take the JPEG quality of the donor's file."""
    changed = []
    for image, quality in zip(images, donors.quality.tolist()):
        if np.isnan(quality):
            changed.append(image)
            continue
        buffer = io.BytesIO()
        to_pil_image(image).save(buffer, format="JPEG", quality=round(quality))
        changed.append(pil_to_tensor(Image.open(buffer)).to(images.dtype) / 255)
    return torch.stack(changed)


CHANGES: dict[str, Change] = {
    BACKGROUND: take_background,
    "brightness or color cast": take_colors,
    BLUR: take_blur,
    COMPRESSION: take_compression,
    **{name: paste_cell(place) for name, place in cells()},
}


def transplant(
    model: nn.Module, shown: Annotated, input_spec: InputSpec | None, seed: int = 0, progress: bool = False
) -> list[Transplant]:
    """Take each thing from an image of another class, and for comparison from one of the same class.

    Args:
        model: a classifier that returns logits (B, K).
        shown: the images, of which those with a known object and a partner of each kind count.
        input_spec: normalizes images in [0, 1].
        seed: of the partners.
        progress: whether to show a bar.
    """
    other = draw_partners(shown.labels, shown.usable, shown.indices, seed)
    same = draw_partners(shown.labels, shown.usable, shown.indices, seed, same_class=True)
    rows = ((other >= 0) & (same >= 0)).nonzero().flatten()
    rows = rows[shown.labels[other[rows]] != shown.labels[rows]]
    if not len(rows):
        return []
    known = file_properties(shown.paths)["JPEG quality"]
    quality = torch.tensor([float("nan") if each is None else float(each) for each in known])
    scorer = Scorer(model, input_spec)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def answers(images: Tensor) -> Tensor:
        return torch.cat(processes().map(lambda some: scorer(some.to(device)).argmax(1).cpu(), images.split(32)))

    everything = Donors(shown.images, shown.regions, quality)
    before = answers(shown.images)
    telling = before[rows] != before[other[rows]]
    rows, wanted = rows[telling], before[other[rows]][telling]
    images, regions = shown.images[rows], shown.regions[rows]
    found = []
    with bar(progress, "transplanting", len(CHANGES)) as advance:
        for name, change in CHANGES.items():
            advance(1)
            able = _able(name, everything, rows, other[rows])
            if not able.any():
                continue
            flips, control = (
                answers(change(images[able], regions[able], everything.of(donor[rows[able]]))) == wanted[able]
                for donor in (other, same)
            )
            more, less = int((flips & ~control).sum()), int((control & ~flips).sum())
            p = float(binomtest(more, more + less, 0.5, "greater").pvalue) if more + less else 1.0
            found.append(Transplant(name, float(flips.float().mean()), float(control.float().mean()), p, len(flips)))
    adjusted = holm([each.p for each in found]) if found else []
    return [Transplant(e.name, e.flips, e.control, p, e.n) for e, p in zip(found, adjusted)]


def _able(name: str, everything: Donors, rows: Tensor, donors: Tensor) -> Tensor:
    """Which images (n,) can take something: blur and compression only go one way."""
    if name == BLUR:
        sharp = sharpness(everything.images.mean(1))
        return sharp[donors] < SHARPER * sharp[rows]
    if name == COMPRESSION:
        return everything.quality[donors] < everything.quality[rows].nan_to_num(100) - 5
    return torch.ones_like(rows, dtype=torch.bool)
