"""ImageNet-9's variants of one image, pixel by pixel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.errors import SightlineError
from sightline.regions.backgrounds import (
    MIXED,
    VARIANTS,
    Backgrounds,
    background_of,
    is_whole,
    paint_over,
    regions_of,
    vary,
)

# A photograph of 4 x 6 whose pixels all differ, and its object: three pixels, and beside them one that is not annotated (255).
IMAGE = torch.arange(1, 25, dtype=torch.uint8).reshape(1, 4, 6)
MASK = torch.zeros(4, 6, dtype=torch.uint8)
MASK[1, 1] = MASK[1, 2] = MASK[2, 1] = 1
MASK[1, 3] = 255
SCENE = 100 + IMAGE

FIRST, LAST = [1, 2, 3, 4, 5, 6], [19, 20, 21, 22, 23, 24]
EXPECTED = {
    "original": [FIRST, [7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18], LAST],
    "only_fg": [[0] * 6, [0, 8, 9, 0, 0, 0], [0, 14, 0, 0, 0, 0], [0] * 6],
    "no_fg": [FIRST, [7, 0, 0, 0, 11, 12], [13, 0, 15, 16, 17, 18], LAST],
    "only_bg_b": [FIRST, [7, 0, 0, 0, 11, 12], [13, 0, 0, 0, 17, 18], LAST],
    # The box is columns 1 to 3; beside it the two columns at the right have 8 pixels, more than the 6 of a row above or below.
    # Repeated from the image's left edge they are 11 12 11 12 11 12, of which the box takes the second to fourth.
    "only_bg_t": [FIRST, [7, 12, 11, 12, 11, 12], [13, 18, 17, 18, 17, 18], LAST],
}
for name in MIXED:
    EXPECTED[name] = [
        [101, 102, 103, 104, 105, 106],
        [107, 8, 9, 110, 111, 112],
        [113, 14, 115, 116, 117, 118],
        [119, 120, 121, 122, 123, 124],
    ]


def expect(rows: list[list[int]]) -> Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("floats", [False, True])
def test_every_variant_has_the_expected_pixels(variant: Any, floats: bool) -> None:
    image, scene, expected = IMAGE, SCENE, expect(EXPECTED[variant])
    if floats:
        image, scene, expected = image / 255, scene / 255, expected / 255
    assert torch.equal(vary(variant, image, MASK, scene), expected)


def test_a_float_mask_has_no_pixel_in_neither_region() -> None:
    soft = torch.tensor([[0.2, 0.5], [0.49, 1.0]])
    inside, around = regions_of(soft)
    assert inside.tolist() == [[False, True], [False, True]]
    assert torch.equal(around, ~inside)


@pytest.mark.parametrize(
    ("box", "rows"),
    [
        # Below the box: the two last rows, 12 pixels; its row r takes row 2 + r % 2 of the image.
        ((0, 1, 2, 6), [[1, 14, 15, 16, 17, 18], [7, 20, 21, 22, 23, 24], [13, 14, 15, 16, 17, 18], [19, 20, 21, 22, 23, 24]]),
        # Above: rows 0 and 1 for rows 2 and 3.
        ((2, 0, 4, 6), [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]),
        # Left: columns 0 and 1 under columns 2 to 5.
        ((0, 2, 4, 6), [[1, 2, 1, 2, 1, 2], [7, 8, 7, 8, 7, 8], [13, 14, 13, 14, 13, 14], [19, 20, 19, 20, 19, 20]]),
    ],
)  # fmt: skip
def test_the_largest_rectangle_next_to_the_box_fills_it(box: tuple[int, ...], rows: list[list[int]]) -> None:
    top, left, bottom, right = box
    mask = torch.zeros(4, 6, dtype=torch.uint8)
    mask[top:bottom, left:right] = 1
    assert torch.equal(background_of(IMAGE, mask), expect(rows))


def literal_tiles(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The tiles laid one after another over a copy of the image, of which the box is then cut out."""
    top, left, bottom, right = box
    height, width = image.shape[-2:]
    beside, above = max(left, width - right) * height, max(top, height - bottom) * width
    if beside > above:
        tile = image[:, :, :left] if left > width - right else image[:, :, right:]
    else:
        tile = image[:, :top] if top > height - bottom else image[:, bottom:]
    canvas = torch.zeros_like(image)
    for y in range(0, height, tile.shape[1]):
        for x in range(0, width, tile.shape[2]):
            room = canvas[:, y : y + tile.shape[1], x : x + tile.shape[2]]
            room.copy_(tile[:, : room.shape[1], : room.shape[2]])
    whole = image.clone()
    whole[:, top:bottom, left:right] = canvas[:, top:bottom, left:right]
    return whole


def test_tiles_equal_the_literal_way_of_laying_them() -> None:
    draw = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 11, 14), dtype=torch.uint8, generator=draw)
    for _ in range(60):
        top, bottom = sorted(torch.randperm(12, generator=draw)[:2].tolist())
        left, right = sorted(torch.randperm(15, generator=draw)[:2].tolist())
        if (top, left, bottom, right) == (0, 0, 11, 14):
            continue
        mask = torch.zeros(11, 14, dtype=torch.uint8)
        mask[top:bottom, left:right] = 1
        assert torch.equal(background_of(image, mask), literal_tiles(image, (top, left, bottom, right)))


def test_inpainting_keeps_all_of_the_background_and_nothing_of_the_object() -> None:
    image = torch.full((3, 12, 12), 0.25)
    mask = torch.zeros(12, 12, dtype=torch.uint8)
    mask[3:9, 3:9] = 1
    mask[3, 3] = 255  # belongs to neither, and must not show
    image[:, mask == 1] = 1.0
    image[:, 3, 3] = 0.9
    painted = background_of(image, mask, "inpaint")
    torch.testing.assert_close(painted, torch.full((3, 12, 12), 0.25), atol=1e-3, rtol=0)
    torch.testing.assert_close(painted, paint_over(image[None], (mask != 0)[None, None].float())[0])
    pixels = (255 * image).round().to(torch.uint8)
    assert torch.equal(background_of(pixels, mask, "inpaint"), torch.full((3, 12, 12), 64, dtype=torch.uint8))


def test_mask_and_box_are_whole_only_with_object_and_background() -> None:
    mask = torch.zeros(4, 6, dtype=torch.uint8)
    assert not is_whole(mask)  # no object
    assert not is_whole(mask + 1)  # no background
    mask[0, 2] = mask[3, 3] = mask[1, 0] = mask[2, 5] = 1  # its box is the whole image, its pixels are not
    assert not is_whole(mask)
    assert is_whole(mask, "inpaint")
    mask[2, 5] = 0
    assert is_whole(mask)  # the last column is free
    assert not is_whole(torch.full((4, 6), 255, dtype=torch.uint8))
    with pytest.raises(SightlineError, match="unknown fill 'tiles'; did you mean 'tile'"):
        is_whole(mask, "tiles")


def test_invalid_variant_or_missing_scene_raises() -> None:
    with pytest.raises(SightlineError, match="did you mean 'mixed_same'"):
        vary("mixed_sane", IMAGE, MASK)
    with pytest.raises(SightlineError, match="'mixed_rand' needs a scene"):
        vary("mixed_rand", IMAGE, MASK)


# ---- whose background ----


def lenders(labels: list[int], has_mask: list[bool] | None = None) -> Backgrounds:
    """Images of 2 x 4 whose pixels are their row's number, with an object in the corner; that of row 3 fills its image."""

    def read(row: int) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(2, 4, dtype=torch.uint8)
        mask[0, 0] = 1
        return torch.full((1, 2, 4), row, dtype=torch.uint8), mask + (mask == 0) if row == 3 else mask

    known = torch.tensor([True] * len(labels) if has_mask is None else has_mask)
    return Backgrounds(torch.tensor(labels), known, torch.arange(len(labels)) + 10, read)


def test_lenders_draw_backgrounds_of_the_requested_class() -> None:
    labels = [0, 0, 0, 1, 1, 2, 2]
    some = lenders(labels)
    for row, label in enumerate(labels):
        index = row + 10
        same, after = ([labels[r] for r in some.draw(v, index, label)] for v in ("mixed_same", "mixed_next"))
        assert set(same) == {label}
        assert len(same) == labels.count(label) - 1
        assert set(after) == {(label + 1) % 3}
        assert len(after) == labels.count((label + 1) % 3)
        everyone = list(some.draw("mixed_rand", index, label))
        assert sorted(everyone) == [r for r in range(7) if r != row]
        assert row not in some.draw("mixed_same", index, label)


def test_a_random_class_is_any_with_equal_chances() -> None:
    some = lenders([0] * 8 + [1, 2])
    first = [next(some.draw("mixed_rand", 10, 0, seed)) for seed in range(600)]
    counts = torch.tensor([some.labels[row] for row in first]).bincount(minlength=3)
    assert (counts - 200).abs().max() < 50  # 200 +- 12 (SD), though eight of ten images are of class 0
    assert {row for row in first if row < 8} == set(range(1, 8))
    again = [next(some.draw("mixed_rand", 10, 0, seed)) for seed in range(600)]
    assert first == again
    other = [next(some.draw("mixed_rand", 11, 0, seed)) for seed in range(600)]
    assert first != other


def test_images_without_a_mask_or_a_background_lend_nothing() -> None:
    some = lenders([0, 0, 1, 1, 1], has_mask=[True, False, True, True, False])
    assert some.find("mixed_same", 10, 0) is None  # the other one has no mask
    for seed in range(5):
        lent = some.find("mixed_next", 10, 0, seed=seed)
        assert lent is not None
        assert torch.equal(lent, torch.full((1, 2, 4), 2, dtype=torch.uint8))  # row 3 is all object
    assert some.find("mixed_same", 12, 1) is None
    alone = lenders([0, 1], has_mask=[True, False])
    assert all(alone.find(variant, 10, 0) is None for variant in MIXED)
