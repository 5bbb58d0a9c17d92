"""Part interpretability of filters."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from sightline.errors import SightlineError
from sightline.input_spec import InputSpec
from sightline.metrics import measure_parts, part_iou


def square(top: int, left: int, bottom: int, right: int, side: int = 8) -> torch.Tensor:
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def test_iou_of_filters_with_parts_by_hand() -> None:
    filters = torch.zeros(4, 8, 8)
    filters[0, :4, :4] = 2.0  # the first part exactly
    filters[1, :4] = 3.0  # the upper half: twice the first part
    filters[2, :4, :4] = 1.0
    filters[2, 4:, 4:] = 0.4  # below half of its highest value
    parts = torch.stack([square(0, 0, 4, 4), square(4, 4, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)])
    expected = [[1.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # the last filter is silent
    assert part_iou(filters, parts).tolist() == expected
    assert part_iou(filters, parts, threshold=0.3)[2].tolist() == [0.5, 0.5, 0.0]  # 16 of 32 pixels each
    assert part_iou(-filters - 1, parts).eq(0).all()  # nowhere above 0


def test_maps_are_resized_to_the_image_and_a_scale_changes_nothing() -> None:
    small = torch.zeros(1, 2, 2)
    small[0, 0, 0] = 1.0
    # bilinear from 2 to 8: 1, 1, .875, .625, .375, .125, 0, 0 along each side; products of at least 0.5
    line = torch.tensor([1.0, 1.0, 0.875, 0.625, 0.375, 0.125, 0.0, 0.0])
    region = line[:, None] * line >= 0.5
    part = square(0, 0, 4, 4)
    expected = float((region & part.bool()).sum() / (region | part.bool()).sum())
    assert part_iou(small, part[None]).item() == pytest.approx(expected)
    assert part_iou(1000 * small, part[None]).item() == pytest.approx(expected)


class Filters(nn.Module):
    """Red and green are the two filters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1, bias=False)
        self.features.weight.data = torch.eye(2, 3)[..., None, None]
        self.head = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Animals:
    """Red upper left, green lower half; the second image has no part."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> SimpleNamespace:
        pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
        pixels[0, :4, :4] = 255
        pixels[1, 4:] = 128
        return SimpleNamespace(image=tv_tensors.Image(pixels))

    def parts(self, index: int) -> dict[str, tv_tensors.Mask]:
        both = {"head": square(0, 0, 4, 4), "torso": square(4, 0, 8, 4), "tail": square(0, 0, 0, 0)}
        return {} if index else {name: tv_tensors.Mask(mask) for name, mask in both.items()}


def test_an_image_has_the_mean_over_filters_of_their_best_part() -> None:
    model = Filters().train()
    values = measure_parts(model, Animals(), size=8, layer="features")
    assert values[0].item() == pytest.approx((1.0 + 0.5) / 2)  # red is the head; green covers the torso twice
    assert values[1].isnan()
    assert model.training
    dark = InputSpec((0.6, 0.6, 0.6), (1.0, 1.0, 1.0), (8, 8))  # takes green, 0.5, below 0
    assert measure_parts(model, Animals(), size=8, layer="features", input_spec=dark)[0].item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("activations", "parts", "threshold", "message"),
    [
        (torch.rand(1, 2, 4, 4), torch.ones(1, 4, 4), 0.5, "activations"),
        (torch.rand(2, 4, 4), torch.ones(4, 4), 0.5, "parts"),
        (torch.rand(2, 4, 4), torch.ones(1, 4, 4), 0.0, "threshold is 0.0"),
    ],
)
def test_bad_arguments(activations: torch.Tensor, parts: torch.Tensor, threshold: float, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        part_iou(activations, parts, threshold)
