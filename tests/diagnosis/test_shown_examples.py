"""Which images a diagnosis shows, by hand; their maps; and the calibration."""

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline.diagnosis import diagnose
from sightline.diagnosis.examples import find_confusions, find_extremes
from sightline.diagnosis.measurements import calibrated_ece
from sightline.diagnosis.page import render
from sightline.metrics import expected_calibration_error


def test_confusions_and_extremes_are_found_in_order() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    predicted = torch.tensor([1, 1, 2, 1, 1, 1, 0])
    confidence = torch.tensor([0.5, 0.9, 0.8, 0.6, 0.7, 0.8, 0.9])
    first, *others = find_confusions(labels, predicted, confidence)
    assert (first.label, first.predicted, first.count, first.of, first.rows) == (0, 1, 2, 3, [1, 0])
    assert [(each.label, each.predicted) for each in others] == [(0, 2), (2, 0)]

    probability = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.8, 0.7, 0.1])
    extremes = find_extremes(labels, (labels == predicted).float(), probability)
    assert [(each.label, each.best, each.worst) for each in extremes] == [
        (0, [2, 1], [0]), (2, [6], []), (1, [4, 5], [3]),
    ]  # fmt: skip


class LeftOrRight(nn.Module):
    """Two logits: what lies on the left half, and 1.5 times what lies on the right half."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)[:, 0]
        return torch.stack([a[..., :4].mean((1, 2)), 1.5 * a[..., 4:].mean((1, 2))], 1)


def test_a_wrong_answer_is_shown_with_the_maps_of_both_classes() -> None:
    """Every image is bright everywhere, so the answer is always the right half; the other class has its map on the left."""
    masks = torch.zeros(40, 8, 8, dtype=torch.uint8)
    masks[:, 2:6, 2:6] = 1
    batch = sl.Batch(
        torch.ones(40, 3, 8, 8), torch.arange(40) % 2, masks=masks, has_mask=torch.ones(40, dtype=torch.bool)
    )
    found = diagnose(LeftOrRight(), [batch], explainer="hirescam", layer="layer")
    assert [(each.label, each.predicted, each.count) for each in found.examples.confusions] == [(0, 1, 20)]
    picture = found.examples.pictures[found.examples.confusions[0].rows[0]]
    assert picture.true is not None
    left, right = picture.true, picture.predicted
    assert left[:, :4].min() == 1 == right[:, 4:].min()
    assert left[:, 4:].max() == 0 == right[:, :4].max()
    assert "0 predicted as 1" in render(found)

    sure, ece = found.measurements["confidence"], found.measurements["ece"]
    expected = torch.tensor([1, 1.5]).softmax(0)[1].item()
    assert sure.value == pytest.approx(expected, abs=1e-6)
    assert ece.value == pytest.approx(expected - 0.5, abs=1e-6)


def test_the_chance_of_calibration_is_that_of_exact_confidences() -> None:
    confidence = torch.full((4,), 0.75, dtype=torch.float64)
    hits = torch.tensor([[i >> bit & 1 for bit in range(4)] for i in range(16)], dtype=torch.float64)
    chances = 0.75 ** hits.sum(1) * 0.25 ** (4 - hits.sum(1))
    exact = chances @ expected_calibration_error(confidence.expand(16, 4), hits)
    assert calibrated_ece(confidence.numpy(), rounds=20_000) == pytest.approx(float(exact), abs=5e-3)
