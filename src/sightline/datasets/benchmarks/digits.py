"""The embedded data set: scikit-learn's handwritten digits on crops of scikit-learn's two images.

Nothing is downloaded. Strokes and backgrounds are real pixels, the masks are exact, and the part of the image that
a digit stands on predicts the class in training and misleads in test.
"""

import colorsys
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sightline._core.checks import check_count
from sightline._core.optional import requires_extra
from sightline._core.seeding import generator
from sightline.data.dataset import InMemory, Sample
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits, divide
from sightline.datasets.derived.recompose import recompose_splits


class Region(NamedTuple):
    """Where the backgrounds of a class are cut out of an image, as (left, top, right, bottom) in pixels."""

    source: str
    train: tuple[int, int, int, int]
    val: tuple[int, int, int, int]  # does not overlap with that for training


REGIONS = {
    "sky": Region("china.jpg", train=(330, 0, 520, 190), val=(0, 0, 92, 140)),
    "pagoda": Region("china.jpg", train=(96, 100, 216, 340), val=(218, 100, 338, 340)),
    "trees": Region("china.jpg", train=(335, 300, 560, 427), val=(0, 335, 250, 427)),
    "petals": Region("flower.jpg", train=(185, 110, 306, 340), val=(308, 110, 432, 340)),
    "leaves": Region("flower.jpg", train=(0, 20, 165, 340), val=(460, 20, 640, 340)),
}
SCENES = 24  # crops of each region
FEATHER = 0.4
STROKE = 0.25  # ink above this share of the full blackness belongs to the digit
CORE = 0.55  # and above this one it has its full tint; between, a dark rim sets it off the background


@DATASETS.register("digits", masks="all", groups=True)
def digits(
    *,
    correlation: float | Literal["uniform"] = 0.8,
    copies: int = 3,
    size: int = 64,
    scale: tuple[float, float] = (0.6, 0.9),
    seed: int = 0,
) -> Splits:
    """Handwritten digits 0 to 4 on images whose part predicts the digit in training and misleads in test.

    Train, validation and test have different handwritten digits. In training, four digits of five stand on crops of
    their own class's region (sky, pagoda, trees, petals, leaves), and in `val` as many on crops of another part of it.
    `val_shifted` has such crops of other classes' regions, `test_shifted` the training crops of other classes, and
    `test_iid` those of the own class. Where all digits stand on their own region, nothing in the data says that it does not
    define the class, and a guide that shapes maps alone does not help a network that sees the region next to the digit.

    Args:
        correlation: share in [0, 1] of training digits on their own class's backgrounds; "uniform" = 1 / classes.
        copies: images made of each training digit, each with its own tint, place, scale and background.
        size: side of the images, in pixels.
        scale: least and greatest longer side of a digit, as a share of `size`.
        seed: of everything drawn.

    Raises:
        SightlineError: a value is out of its range.
    """
    with requires_extra("cluster", "the dataset 'digits'"):
        from sklearn.datasets import load_digits, load_sample_image

    check_count(copies=copies)
    bunch = load_digits(n_class=len(REGIONS))
    ink = torch.from_numpy(bunch.images).float() / 16  # (N, 8, 8) in [0, 1]
    labels = bunch.target.tolist()
    classes = [str(digit) for digit in range(len(REGIONS))]
    objects = {
        split: InMemory(
            [
                _write(ink[place], labels[place], f"digits/{place:04d}", generator(seed, place, copy, "tint"))
                for place in places
                for copy in range(copies if split == "train" else 1)
            ],
            classes,
            identity=(split, seed, copies),
        )
        for split, places in divide(labels, {"val": 0.2, "test": 0.3}, seed).items()
    }
    sources = {r.source: F.to_image(load_sample_image(r.source).copy()) for r in REGIONS.values()}
    scenes = {
        split: InMemory(
            [
                _crop(
                    sources[r.source],
                    getattr(r, split),
                    label,
                    f"{r.source}/{split}/{name}/{number:02d}",
                    seed,
                )
                for label, (name, r) in enumerate(REGIONS.items())
                for number in range(SCENES)
            ],
            classes,
            identity=(split, seed),
        )
        for split in ("train", "val")
    }
    return recompose_splits(
        objects, scenes, correlation=correlation, size=size, scale=scale, feather=FEATHER, seed=seed
    )


def _write(ink: Tensor, label: int, path: str, draw: torch.Generator) -> Sample:
    """Draw a digit of 8 x 8 gray values large, with its shading from a dark rim to a bright core, in a light tint."""
    ink = F.resize(F.pad(ink[None], [1]), [80, 80], interpolation=v2.InterpolationMode.BICUBIC)[0]
    hue, saturation = torch.rand(2, generator=draw).tolist()
    bright = torch.tensor(colorsys.hsv_to_rgb(hue, 0.3 + 0.4 * saturation, 1.0))
    core = ((ink - STROKE) / (CORE - STROKE)).clamp(0, 1)
    colour = bright[:, None, None] * core
    return Sample(
        image=tv_tensors.Image((255 * colour).round().to(torch.uint8)),
        label=label,
        mask=tv_tensors.Mask((ink > STROKE).to(torch.uint8)),
        index=0,
        group=None,
        path=path,
    )


def _crop(source: Tensor, region: tuple[int, int, int, int], label: int, path: str, seed: int) -> Sample:
    """Crop a square of 80 to 120 pixels, or as large as fits, out of a region of an image."""
    left, top, right, bottom = region
    size, across, down = torch.rand(3, generator=generator(seed, path, "crop")).tolist()
    side = min(round(80 + 40 * size), right - left, bottom - top)
    x, y = left + round(across * (right - left - side)), top + round(down * (bottom - top - side))
    crop = source[:, y : y + side, x : x + side]
    return Sample(tv_tensors.Image(crop), label=label, mask=None, index=0, group=None, path=path)
