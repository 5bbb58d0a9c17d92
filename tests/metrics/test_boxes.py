import pytest
import torch
from skimage.measure import label, regionprops
from torch import Tensor

import sightline as sl
from sightline.metrics import (
    BoxLocalization,
    EnergyInBox,
    Observation,
    PointingGameInBox,
    box_localization,
    energy_in_box,
    energy_in_mask,
    map_boxes,
    pointing_game,
    pointing_game_in_box,
)

# Two parts above 0.5: one of three pixels that touch at corners, one of two.
MAP = torch.tensor(
    [
        [0.9, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.8, 0.0, 0.0, 0.0],
        [0.7, 0.0, 0.0, 0.0, 0.6],
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)[None]


def test_map_boxes_take_the_highest_pixels_or_values() -> None:
    assert map_boxes(MAP).tolist() == [[0, 0, 2, 3]]  # a fifth of 25 pixels: all five
    assert map_boxes(MAP, share=0.12).tolist() == [[0, 0, 2, 2]]  # the highest three are 1.0, 0.9 and 0.8
    assert map_boxes(MAP, share=0.04).tolist() == [[4, 3, 5, 4]]
    assert map_boxes(MAP, share=0.75, by="value").tolist() == [[0, 0, 2, 2]]
    assert map_boxes(MAP, share=0.9, by="value").tolist() == [[4, 3, 5, 4]]  # above, not at
    assert map_boxes(MAP, share=0.9).tolist() == [[0, 0, 2, 3]]  # zeros are never pointed out


def test_box_localization_counts_boxes_of_half_overlap() -> None:
    # The map's box has 2 x 3 pixels.
    boxes = torch.tensor([[0.0, 0, 2, 3], [0, 0, 2, 6], [0, 0, 2, 6.1], [0, 1, 4, 3], [3, 2, 5, 4]])
    hits = [box_localization(MAP, box[None, None]).item() for box in boxes]
    assert hits == [1, 1, 0, 0, 0]  # IoU 1, 1/2, less, 4/10, 0
    assert box_localization(MAP, boxes[3].view(1, 1, 4), threshold=0.4).item() == 1
    both = boxes[None, [4, 0]]  # any of the object's boxes will do, if it is real
    assert box_localization(MAP, both).item() == 1
    assert box_localization(MAP, both, torch.tensor([[True, False]])).item() == 0
    assert box_localization(MAP, both, torch.tensor([[False, False]])).isnan().all()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_boxes_equal_those_of_scikit_image(share: float) -> None:
    maps = torch.rand(8, 17, 13)
    for one, box in zip(maps, map_boxes(maps, share)):
        top = one.flatten().sort(descending=True).values[: -int(-share * one.numel() // 1)]
        parts = regionprops(label((one >= top[-1]).numpy(), connectivity=2))
        y0, x0, y1, x1 = max(parts, key=lambda part: part.area).bbox
        assert box.tolist() == [x0, y0, x1, y1]


def test_pointing_game_in_box_takes_the_maximum_with_a_tolerance() -> None:
    boxes = torch.tensor([[4.0, 3, 5, 4], [0, 0, 2, 3], [4, 4, 5, 5]])  # the maximum is at row 3, column 4
    hits = [pointing_game_in_box(MAP, box[None, None]).item() for box in boxes]
    assert hits == [1, 0, 0]
    assert pointing_game_in_box(MAP, boxes[None, 2:], tolerance=1).item() == 1
    assert pointing_game_in_box(MAP, boxes[None, :2], torch.tensor([[False, True]])).item() == 0
    assert pointing_game_in_box(MAP, boxes[None, :1], torch.tensor([[False]])).isnan().all()
    flat = torch.ones(1, 4, 5)
    assert pointing_game_in_box(flat, torch.tensor([[[0.0, 0, 2, 2]]])).item() == pytest.approx(4 / 20)  # chance


def test_a_maximum_next_to_the_object_and_in_its_box_hits_by_boxes_alone() -> None:
    mask = torch.zeros(1, 5, 5, dtype=torch.uint8)
    mask[0, 1:, 2] = mask[0, 4, 2:] = 1  # an L, with the maximum between its arms
    assert pointing_game(MAP, mask).item() == 0
    metric = PointingGameInBox()
    metric.update(MAP, masks=mask)
    assert metric.compute() == 1
    whole = torch.zeros(1, 5, 5, dtype=torch.uint8)
    whole[0, 1:, 2:] = 1
    assert pointing_game(MAP, whole).item() == 1


def test_energy_in_box_is_the_share_inside() -> None:
    boxes = torch.tensor([[[0.0, 0, 2, 3], [3, 3, 5, 5]]])
    torch.testing.assert_close(energy_in_box(MAP, boxes), torch.tensor([3.4 / 4]))
    torch.testing.assert_close(energy_in_box(MAP, boxes, torch.tensor([[True, False]])), torch.tensor([2.4 / 4]))
    twice = torch.tensor([[[0.0, 0, 2, 3], [0, 0, 2, 3]]])  # boxes that overlap count once
    torch.testing.assert_close(energy_in_box(MAP, twice), torch.tensor([2.4 / 4]))
    halves = torch.tensor([[[0.0, 0, 0.4, 5]], [[0.0, 0, 0.6, 5]]])  # a pixel is where its centre is
    torch.testing.assert_close(energy_in_box(MAP.repeat(2, 1, 1), halves), torch.tensor([0, 1.6 / 4]))


def test_energy_in_a_box_is_that_in_its_mask() -> None:
    maps, mask = torch.rand(3, 9, 8), torch.zeros(3, 9, 8, dtype=torch.uint8)
    mask[:, 2:7, 3:5] = 1
    boxes = torch.tensor([3.0, 2, 5, 7]).expand(3, 1, 4)
    torch.testing.assert_close(energy_in_box(maps, boxes), energy_in_mask(maps, mask))


def test_images_without_a_box_take_that_of_their_mask() -> None:
    maps = MAP.repeat(5, 1, 1)
    masks = torch.zeros(5, 5, 5, dtype=torch.uint8)
    masks[:, 2, 4] = masks[:, 3, 3] = 1  # the box (3, 2, 5, 4), which holds 1.6 of 4
    masks[3], masks[0, 0, 0] = 0, 255
    boxes = torch.tensor([0.0, 0, 2, 3]).repeat(5, 1, 1)  # holds 2.4 of 4
    has_box = torch.tensor([[False], [True], [False], [False], [False]])
    has_mask = torch.tensor([True, True, True, True, False])
    metric = EnergyInBox()
    metric.update(maps, boxes, has_box, masks, has_mask)
    nan = torch.nan
    torch.testing.assert_close(metric.per_image(), torch.tensor([0.4, 0.6, 0.4, nan, nan]), equal_nan=True)
    metric.compute()
    assert (metric.n, metric.skipped) == (3, 2)

    alone = BoxLocalization()
    alone.update(maps, masks=masks, has_mask=has_mask)
    torch.testing.assert_close(alone.per_image(), torch.tensor([0, 0, 0, nan, nan]), equal_nan=True)
    nothing = BoxLocalization()
    nothing.update_batch(Observation(maps=maps))
    with pytest.raises(sl.SightlineError, match="5 were skipped"):
        nothing.compute()


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_map_points_nowhere(value: float) -> None:
    flat, whole = torch.full((1, 5, 5), value), torch.tensor([[[0.0, 0, 5, 5]]])
    for by in ("pixels", "value"):
        assert map_boxes(flat, by=by).tolist() == [[0, 0, 0, 0]]
        assert box_localization(flat, whole, by=by).item() == 0
    assert energy_in_box(flat, whole).item() == float(value > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, "share is 1.0"),
        ({"by": "area"}, "by is 'area'"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"boxes": torch.zeros(1, 4)}, r"boxes have shape \(1, 4\)"),
        ({"maps": MAP * torch.nan}, "NaN"),
    ],
)
def test_box_localization_invalid_arguments_raise(change: dict, message: str) -> None:
    arguments: dict[str, Tensor] = {"maps": MAP, "boxes": torch.zeros(1, 1, 4)} | change
    with pytest.raises(sl.SightlineError, match=message):
        box_localization(**arguments)
