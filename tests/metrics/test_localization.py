import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import binary_jaccard_index

import sightline as sl
from sightline.metrics import EnergyInMask, MIoU, PointingGame, energy_in_mask, foreground_iou, pointing_game

MASK = torch.tensor([[[1, 1, 0], [1, 0, 0], [0, 0, 255]]], dtype=torch.uint8)
MAP = torch.tensor([[[0.9, 0.5, 0.5], [0.4, 0.1, 0.0], [0.0, 0.0, 1.0]]])


def test_foreground_iou_leaves_out_ignored_pixels() -> None:
    # Region: 3 pixels without the ignored one; object: 3 pixels; they share 2.
    assert foreground_iou(MAP, MASK).tolist() == [0.5]
    assert foreground_iou(MAP, MASK, threshold=0.45).tolist() == [0.5]
    assert foreground_iou(MAP, MASK, threshold=0.95).tolist() == [0]
    assert foreground_iou(MAP, MASK, threshold=0.4).tolist() == [0.75]


def test_pointing_game_leaves_out_ignored_pixels_and_shares_ties() -> None:
    assert pointing_game(MAP, MASK).tolist() == [1]  # the greatest value is ignored, the next one hits
    assert pointing_game(1 - MAP, MASK).tolist() == [0]
    ties = torch.tensor([[[1.0, 0, 1], [0, 0, 0], [1, 0, 1]]])
    torch.testing.assert_close(pointing_game(ties, MASK), torch.tensor([1 / 3]))


def test_tolerance_is_a_euclidean_distance() -> None:
    mask = torch.zeros(1, 41, 41, dtype=torch.uint8)
    mask[0, 20, 20] = 1
    points = {(20, 35): 1, (20, 36): 0, (29, 32): 1, (31, 31): 0}  # distances 15, 16, 15, 15.6
    for (row, column), hit in points.items():
        point = torch.zeros(1, 41, 41)
        point[0, row, column] = 1
        assert pointing_game(point, mask, tolerance=15).tolist() == [hit]
        assert pointing_game(point, mask).tolist() == [0]


def test_energy_in_mask_is_the_share_inside() -> None:
    torch.testing.assert_close(energy_in_mask(MAP, MASK), torch.tensor([1.8 / 2.4]))
    soft = torch.tensor([[[1.0, 0.5], [0, 0]]])
    torch.testing.assert_close(energy_in_mask(torch.tensor([[[0.2, 0.4], [0.4, 0]]]), soft), torch.tensor([0.4]))


def test_zero_maps_have_defined_values() -> None:
    zero = torch.zeros(1, 3, 3)
    assert foreground_iou(zero, MASK).tolist() == [0]
    assert energy_in_mask(zero, MASK).tolist() == [0]
    assert pointing_game(zero, MASK).tolist() == [3 / 8]  # chance


def test_images_without_an_object_are_skipped_and_counted() -> None:
    maps = MAP.repeat(4, 1, 1)
    masks = torch.stack([MASK[0], torch.zeros_like(MASK[0]), MASK[0], torch.full_like(MASK[0], 255)])
    has_mask = torch.tensor([True, True, False, True])
    for metric, value in [(MIoU(), 0.5), (PointingGame(), 1.0), (EnergyInMask(), 0.75)]:
        metric.update(maps, masks, has_mask)
        torch.testing.assert_close(metric.compute(), torch.tensor(value))
        assert (metric.n, metric.skipped) == (1, 3)
        assert metric.per_image().isnan().tolist() == [False, True, True, True]
        metric.reset()
        metric.update(maps[1:2], masks[1:2])
        with pytest.raises(sl.SightlineError, match="no image to average over"):
            metric.compute()


def test_each_class_has_its_own_mask() -> None:
    masks = torch.stack([MASK, 1 - MASK.where(MASK == 1, 0)], 1)  # (1, 2, 3, 3)
    maps = MAP.repeat(2, 1, 1)
    values = foreground_iou(maps, masks.repeat(2, 1, 1, 1), targets=torch.tensor([0, 1]))
    torch.testing.assert_close(
        values, torch.stack([foreground_iou(MAP, masks[:, 0]), foreground_iou(MAP, masks[:, 1])])[:, 0]
    )
    with pytest.raises(sl.SightlineError, match="2 classes"):
        foreground_iou(MAP, masks)
    torch.testing.assert_close(foreground_iou(MAP, MASK[:, None]), foreground_iou(MAP, MASK))


def test_iou_agrees_with_torchmetrics() -> None:
    maps, masks = torch.rand(6, 9, 7), (torch.rand(6, 9, 7) > 0.6).to(torch.uint8)
    masks[masks.roll(1, 2) + masks > 1] = 255
    peer = [binary_jaccard_index((m >= 0.5).int(), t, ignore_index=255) for m, t in zip(maps, masks)]
    torch.testing.assert_close(foreground_iou(maps, masks), torch.stack(peer))


@st.composite
def maps_and_masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    seed, height, width = draw(st.integers(0, 10**6)), draw(st.integers(2, 9)), draw(st.integers(2, 9))
    random = torch.Generator().manual_seed(seed)
    masks = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(3, (3, height, width), generator=random)]
    return torch.rand(3, height, width, generator=random).round(decimals=1), masks


@settings(max_examples=50, deadline=None)
@given(maps_and_masks(), st.sampled_from([(1,), (2,), (1, 2)]))
def test_turning_map_and_mask_together_changes_nothing(pair: tuple[Tensor, Tensor], axes: tuple[int, ...]) -> None:
    maps, masks = pair
    for function in (foreground_iou, pointing_game, energy_in_mask):
        expected = function(maps, masks)
        torch.testing.assert_close(function(maps.flip(axes), masks.flip(axes)), expected, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(maps_and_masks(), st.floats(1e-3, 1e3))
def test_scale_does_not_matter_where_it_should_not(pair: tuple[Tensor, Tensor], scale: float) -> None:
    maps, masks = pair
    for function in (pointing_game, energy_in_mask):
        torch.testing.assert_close(function(maps * scale, masks), function(maps, masks), equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(maps_and_masks())
def test_batch_equals_single_and_ignored_pixels_do_not_count(pair: tuple[Tensor, Tensor]) -> None:
    maps, masks = pair
    for function in (foreground_iou, pointing_game, energy_in_mask):
        expected = function(maps, masks)
        single = torch.cat([function(maps[i : i + 1], masks[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(single, expected, equal_nan=True)
        torch.testing.assert_close(function(maps.masked_fill(masks == 255, 1.0), masks), expected, equal_nan=True)


@pytest.mark.parametrize("function", [foreground_iou, pointing_game, energy_in_mask])
def test_localization_invalid_arguments_raise(function) -> None:
    with pytest.raises(sl.SightlineError, match="NaN"):
        function(MAP.masked_fill(MAP > 0.8, torch.nan), MASK)
    with pytest.raises(sl.SightlineError, match=r"expected \(1, 3, 3\) or"):
        function(MAP, MASK[:, :2])
    with pytest.raises(sl.SightlineError, match="expected a float type"):
        function(MASK, MASK)


def test_ranges_and_options_are_rejected() -> None:
    with pytest.raises(sl.SightlineError, match=r"expected \[0, 1\]"):
        foreground_iou(MAP * 2, MASK)
    with pytest.raises(sl.SightlineError, match=r"expected \[0, inf\]"):
        energy_in_mask(MAP - 0.5, MASK)
    with pytest.raises(sl.SightlineError, match="tolerance is -1"):
        pointing_game(MAP, MASK, tolerance=-1)
