import numpy as np
import pytest

pytest.importorskip("cv2")

from sightline import SightlineError
from sightline.localization.clicks import segment_clicks

NONE = np.zeros((0, 2))


def scene(height=180, width=240, radius=40, seed=0):
    """A blue disc and an orange square on a noisy green ground, with the masks of both."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] + 0.5
    disc = np.hypot(columns - 80, rows - 90) < radius
    square = (abs(columns - 180) < 30) & (abs(rows - 90) < 30)
    pixels = np.full((height, width, 3), (70, 120, 60.0))
    pixels[disc], pixels[square] = (40, 60, 200), (230, 140, 30)
    return np.clip(pixels + draw.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8), disc, square


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("size", [(180, 240), (150, 220), (240, 220)])
def test_one_click_finds_the_object_that_was_clicked(size):
    image, disc, square = scene(*size)
    assert overlap(segment_clicks(image, np.array([[80.0, 90.0]])), disc) > 0.9
    assert overlap(segment_clicks(image, np.array([[185.0, 85.0]])), square) > 0.9


def test_two_clicks_find_two_objects_and_a_rejected_one_takes_one_away():
    image, disc, square = scene()
    both = segment_clicks(image, np.array([[80.0, 90.0], [180.0, 90.0]]))
    assert overlap(both, disc | square) > 0.9
    one = segment_clicks(image, np.array([[80.0, 90.0]]), np.array([[180.0, 90.0]]))
    assert overlap(one, disc) > 0.93


def test_a_box_limits_the_object_and_needs_no_click():
    image, disc, square = scene()
    found = segment_clicks(image, NONE, None, np.array([130.0, 40.0, 230.0, 140.0]))
    assert overlap(found, square) > 0.9
    assert not (found & disc).any()


def test_equal_arguments_give_equal_masks_and_do_not_change_the_arguments():
    image, *_ = scene()
    before, points = image.copy(), np.array([[80.0, 90.0]])
    first = segment_clicks(image, points)
    assert (first == segment_clicks(image, points)).all()
    assert (image == before).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 2), (2, 2), (7, 7)])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_image_gives_a_mask_that_holds_the_click(size, seed):
    image = np.zeros((*size, 3), np.uint8)
    if seed is not None:
        image = np.random.default_rng(seed).integers(0, 255, image.shape, np.uint8)
    mask = segment_clicks(image, np.array([[size[1] / 2, size[0] / 2]]))
    assert (mask.shape, mask.dtype, mask.any()) == (size, bool, True)


def test_clicks_invalid_arguments_raise():
    image, *_ = scene()
    for arguments, problem in (
        ((image.astype(float), NONE), "image is float64"),
        ((image[..., 0], NONE), "image is"),
        ((image, NONE), "no point"),
        ((image, np.array([[np.nan, 1.0]])), "inside has"),
        ((image, np.zeros((2, 3))), "inside has"),
        ((image, NONE, np.array([1.0, 2.0])), "outside has"),
        ((image, NONE, NONE, np.array([1.0, 2.0, np.inf, 3.0])), "box has"),
    ):
        with pytest.raises(SightlineError, match=problem):
            segment_clicks(*arguments)
