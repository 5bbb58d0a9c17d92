"""Masks in memory are read as files are: the object is what is not 0, not black or not transparent, or the mask is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.files import UnclearFileError
from sightline.given.dataset import as_mask

SIZE = (6, 8)
OBJECT = np.zeros(SIZE, np.uint8)
OBJECT[1:4, 2:7] = 1
COLORS = np.dstack([OBJECT * 200, OBJECT * 90, OBJECT * 0])
ALPHA = np.dstack([np.full((*SIZE, 3), 70, np.uint8), OBJECT * 255])
OPAQUE = np.dstack([COLORS, np.full(SIZE, 255, np.uint8)])


def palette() -> Image.Image:
    image = Image.fromarray(OBJECT * 3, "P")
    image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 255, 0, 0])
    return image


@pytest.mark.parametrize(
    "region",
    [
        OBJECT, OBJECT * 255, OBJECT * 7, OBJECT > 0, OBJECT.astype(float), OBJECT.astype(np.uint16) * 65535,
        OBJECT[None], OBJECT[..., None], torch.tensor(OBJECT)[None].float(), torch.tensor(OBJECT).bool(),
        COLORS, COLORS / 255.0, OPAQUE, OPAQUE / 255.0, ALPHA, torch.tensor(COLORS).permute(2, 0, 1),
        Image.fromarray(OBJECT * 255), Image.fromarray(OBJECT * 255).convert("1"), Image.fromarray(COLORS),
        Image.fromarray(OPAQUE), Image.fromarray(ALPHA), palette(),
    ],
)  # fmt: skip
def test_mask_in_memory_shows_the_object(region) -> None:
    assert torch.equal(as_mask(region, "a", SIZE), torch.tensor(OBJECT))


@pytest.mark.parametrize(
    "region",
    [
        OBJECT * 0.5,  # probabilities
        np.where(OBJECT, np.nan, 0.0),
        OBJECT.astype(int) - 1,
        np.stack([OBJECT, 1 - OBJECT]),  # one plane a class
        np.array([["a", "b"]]),
        np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8),  # a photo
    ],
)
def test_mask_in_memory_that_does_not_say_what_the_object_is_is_refused(region) -> None:
    with pytest.raises(UnclearFileError, match=r"the mask of a .*\. Give "):
        as_mask(region, "a", SIZE)
