"""Part interpretability of filters."""

import pytest
import torch
from torch import nn

from sightline.data import Batch
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.metrics import METRICS, part_iou
from sightline.network.input_spec import InputSpec


def square(top: int, left: int, bottom: int, right: int, side: int = 8) -> torch.Tensor:
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def test_part_iou_compares_each_filter_with_each_part() -> None:
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


def animals() -> tuple[torch.Tensor, torch.Tensor]:
    """Red upper left, green lower half; the second image has no part."""
    images = torch.zeros(2, 3, 8, 8)
    images[:, 0, :4, :4] = 1.0
    images[:, 1, 4:] = 0.5
    head, torso, hidden = square(0, 0, 4, 4), square(4, 0, 8, 4), square(0, 0, 0, 0)
    return images, torch.stack([torch.stack([head, torso, hidden]), torch.zeros(3, 8, 8, dtype=torch.uint8)])


@pytest.mark.parametrize("internal_batch_size", [None, 1])
def test_an_image_has_the_mean_over_filters_of_their_best_part(internal_batch_size: int | None) -> None:
    model = Filters().train()
    metric = METRICS["part_interpretability"](model=model, layer="features", internal_batch_size=internal_batch_size)
    metric.update(*animals())
    values = metric.per_image()
    assert values[0].item() == pytest.approx((1.0 + 0.5) / 2)  # red is the head; green covers the torso twice
    assert values[1].isnan()
    assert metric.compute().item() == values[0].item()
    assert (metric.n, metric.skipped) == (1, 1)
    assert model.training
    dark = InputSpec((0.6, 0.6, 0.6), (1.0, 1.0, 1.0), (8, 8))  # takes green, 0.5, below 0
    darker = METRICS["part_interpretability"](model=model, layer="features", input_spec=dark)
    darker.update(*animals())
    assert darker.compute().item() == pytest.approx(0.5)


def test_filters_with_nan_are_rejected() -> None:
    model = Filters()
    model.features.weight.data[0] = torch.nan
    with pytest.raises(SightlineError, match="NaN or infinity in the activations of 'features'"):
        METRICS["part_interpretability"](model=model, layer="features").update(*animals())


def test_evaluation_measures_it_where_there_are_parts() -> None:
    images, parts = animals()
    labels = torch.tensor([0, 1])
    batches = [Batch(images, labels, parts=parts), Batch(images, labels)]
    found = evaluate_model(Filters(), batches, [], ["accuracy", "part_interpretability"], layer="features")
    (result,) = [each for each in found.results if each.metric == "part_interpretability"]
    assert (result.value, result.n, result.explainer) == (pytest.approx(0.75), 1, None)
    column = found.samples["part_interpretability"]
    assert column[0].item() == pytest.approx(0.75)
    assert column[1:].isnan().all()
    bare = evaluate_model(Filters(), batches[1:], [], ["accuracy", "part_interpretability"], layer="features")
    assert bare.facts["left_out"] == {"part_interpretability": "no image has parts"}


@pytest.mark.parametrize(
    ("activations", "parts", "threshold", "message"),
    [
        (torch.rand(1, 2, 4, 4), torch.ones(1, 4, 4), 0.5, "activations"),
        (torch.rand(2, 4, 4), torch.ones(4, 4), 0.5, "parts"),
        (torch.rand(2, 4, 4), torch.ones(1, 4, 4), 0.0, "threshold is 0.0"),
    ],
)
def test_part_iou_invalid_arguments_raise(
    activations: torch.Tensor, parts: torch.Tensor, threshold: float, message: str
) -> None:
    with pytest.raises(SightlineError, match=message):
        part_iou(activations, parts, threshold)
