"""The object by masks and by boxes."""

import pytest
import torch

import sightline as sl
from sightline.errors import SightlineError
from sightline.regions.batch_regions import check_source, object_region


def batch(**annotations: torch.Tensor) -> sl.Batch:
    return sl.Batch(torch.zeros(2, 3, 2, 3), torch.tensor([0, 1]), **annotations)


def test_a_pixel_that_the_mask_ignores_is_on_neither_side() -> None:
    masks = torch.tensor([[[1, 0, 255], [1, 0, 0]], [[255, 255, 0], [0, 0, 0]]], dtype=torch.uint8)
    region = object_region(batch(masks=masks), "masks")
    assert region.inside[0].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert region.outside[0].tolist() == [[0, 1, 0], [0, 1, 1]]
    assert region.known.tolist() == [True, False]  # the second has no object


def test_an_image_without_a_mask_has_no_sides() -> None:
    masks = torch.rand(2, 2, 3)
    region = object_region(batch(masks=masks, has_mask=torch.tensor([False, True])), "masks")
    assert not region.inside[0].any()
    assert not region.outside[0].any()
    torch.testing.assert_close(region.inside[1] + region.outside[1], torch.ones(2, 3))
    assert region.known.tolist() == [False, True]
    for source in ("masks", "boxes"):
        nothing = object_region(batch(), source)
        assert not nothing.known.any()
        assert not nothing.outside.any()


def test_the_labels_mask_is_taken_of_several() -> None:
    masks = torch.zeros(2, 2, 2, 3, dtype=torch.uint8)
    masks[0, 0, 0, 0] = masks[1, 1, 1, 2] = 1
    region = object_region(batch(masks=masks), "masks")
    assert region.inside[0].nonzero().tolist() == [[0, 0]]
    assert region.inside[1].nonzero().tolist() == [[1, 2]]
    one = object_region(batch(masks=masks[:, :1]), "masks")
    assert one.known.tolist() == [True, False]


def test_boxes_are_joined_and_clipped() -> None:
    boxes = torch.tensor([
        [[-5.0, 0, 1, 9], [2, 1, 3, 2]],
        [[0, 0, 3, 2], [0, 0, 1, 1]],
    ])  # fmt: skip
    region = object_region(batch(boxes=boxes, has_box=torch.tensor([[True, True], [False, True]])), "boxes")
    assert region.inside[0].tolist() == [[1, 0, 0], [1, 0, 1]]
    assert region.outside[0].tolist() == [[0, 1, 1], [0, 1, 0]]
    assert region.inside[1].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_a_box_next_to_the_image_or_without_an_area_is_not_an_object() -> None:
    boxes = torch.tensor([[[10.0, 10, 20, 20]], [[1, 1, 1, 2]]])
    assert not object_region(batch(boxes=boxes), "boxes").known.any()


def test_an_unknown_region_source_raises() -> None:
    with pytest.raises(SightlineError, match="unknown region 'box'; did you mean 'boxes'"):
        check_source("box")
