"""GrabCut finds what differs from its surroundings, does so twice alike, and is defined where there is nothing to cut."""

import pytest
import torch
from torch import Tensor

from sightline import SightlineError
from sightline.localization.grabcut import grabcut

TRUE = torch.zeros(32, 32, dtype=torch.uint8)
TRUE[10:22, 8:20] = 1


def scene(noise: float = 0.0) -> Tensor:
    """(1, 3, 32, 32): a red square on green."""
    image = torch.where(
        TRUE.bool(), torch.tensor([0.8, 0.2, 0.2])[:, None, None], torch.tensor([0.2, 0.7, 0.2])[:, None, None]
    )
    return (image + noise * torch.randn(3, 32, 32)).clamp(0, 1)[None]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_square_is_cut_out_of_its_box_and_from_around_the_centre(noise) -> None:
    image = scene(noise)
    assert grabcut(image, torch.tensor([[5.0, 7, 24, 25]]))[0].equal(TRUE)
    assert grabcut(image, points=[torch.tensor([[14.0, 16.0]])])[0].equal(TRUE)


def test_equal_arguments_give_equal_masks_whatever_else_is_in_the_batch() -> None:
    images = torch.rand(3, 3, 24, 24)
    boxes = torch.tensor([[4.0, 4, 20, 20]]).expand(3, 4)
    whole = grabcut(images, boxes)
    assert whole.dtype == torch.uint8
    assert grabcut(images[1:2], boxes[1:2]).equal(whole[1:2])
    assert grabcut(images, boxes).equal(whole)


def test_nothing_outside_the_box_is_object() -> None:
    mask = grabcut(torch.rand(1, 3, 24, 24), torch.tensor([[4.0, 6, 20, 15]]))[0]
    mask[6:15, 4:20] = 0
    assert not mask.any()


def test_a_point_is_object_for_certain_and_one_outside_the_box_or_the_image_is_none() -> None:
    image, box = scene(), torch.tensor([[4.0, 4, 28, 28]])
    point = torch.tensor([[25.5, 25.5]])  # on the green, within the box
    assert grabcut(image, box, [point])[0, 25, 25] == 1
    assert grabcut(image, box, [torch.tensor([[1.0, 1.0], [99.0, -3.0]])])[0].equal(TRUE)


def test_where_there_is_nothing_to_cut_the_mask_is_the_box() -> None:
    plain, boxes = (
        torch.full((4, 3, 16, 16), 0.3),
        torch.tensor([[2.0, 3, 7, 9], [0, 0, 16, 16], [5, 5, 5, 9], [-9, -9, 99, 4]]),
    )
    masks = grabcut(plain, boxes)
    expected = torch.zeros_like(masks)
    expected[0, 3:9, 2:7] = 1
    expected[1] = 1
    expected[3, :4] = 1
    assert masks.equal(expected)
    pictures = torch.rand(2, 3, 16, 16)
    tiny = grabcut(pictures, torch.tensor([[3.0, 3, 4, 5], [0, 0, 16, 16]]))  # two pixels inside; none outside
    assert tiny[0].nonzero().tolist() == [[3, 3], [4, 3]]
    assert tiny[1].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(2, 1, 8, 8)}, "1 channels"),
        ({"images": 2 + torch.rand(2, 3, 8, 8)}, r"range over \[2"),
        ({"boxes": torch.zeros(1, 4)}, "boxes have shape"),
        ({"boxes": torch.full((2, 4), torch.nan)}, "infinity in boxes"),
        ({"points": [torch.zeros(1, 2)]}, "points are"),
        ({"iterations": 0}, "iterations is 0"),
    ],
)
def test_grabcut_with_invalid_input_raises_with_its_name(change, message) -> None:
    given = {"images": torch.rand(2, 3, 8, 8), **change}
    with pytest.raises(SightlineError, match=message):
        grabcut(**given)
