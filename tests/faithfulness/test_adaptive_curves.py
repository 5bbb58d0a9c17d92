"""Insertion and deletion at few places: the area within the tolerance, by fewer evaluations."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.faithfulness.adaptive_curves import FIRST, SparseCurves
from sightline.metrics import Deletion, Insertion, perturbation_curves

STEPS = 224


class Counting(nn.Module):
    """A trained network of small images, which counts the images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
        )  # fmt: skip
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.net(images)


def squares(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of noise with a bright square in one of four corners, which is the class."""
    draw = torch.Generator().manual_seed(seed)
    images, labels = 0.4 * torch.rand(count, 3, 16, 16, generator=draw), torch.randint(4, (count,), generator=draw)
    for image, label in zip(images, labels.tolist()):
        row, column = 8 * (label // 2) + 1, 8 * (label % 2) + 1
        image[:, row : row + 6, column : column + 6] += 0.5
    return images, labels


@pytest.fixture(scope="module")
def model() -> Counting:
    torch.manual_seed(0)
    model = Counting()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    images, labels = squares(256, 1)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).float().mean() > 0.95
    return model.eval()


@pytest.mark.parametrize("method", ["gradcam", "saliency", "gaussian"])
@pytest.mark.parametrize("tolerance", [0.02, 0.005])
def test_areas_are_within_the_tolerance_of_the_full_curves(model: Counting, method: str, tolerance: float) -> None:
    images, _ = squares(8, 2)
    maps = sl.explain(model, images, method, layer="net.4" if method == "gradcam" else None)
    full = perturbation_curves(model, images, maps, steps=STEPS, fill=0.0)
    model.seen = 0
    few = perturbation_curves(model, images, maps, steps=STEPS, fill=0.0, tolerance=tolerance)
    assert model.seen < (0.2 if tolerance == 0.02 else 0.4) * 2 * STEPS * len(images)
    for kind, curve in few.items():
        assert curve.shape == (8, STEPS + 1)
        torch.testing.assert_close(curve[:, [0, -1]], full[kind][:, [0, -1]])
        error = (torch.trapezoid(curve, dx=1 / STEPS) - torch.trapezoid(full[kind], dx=1 / STEPS)).abs()
        assert error.max() <= tolerance
        assert full[kind].diff(dim=1).abs().sum(1).mean() > 0.5  # the curves go somewhere


def test_places_that_were_asked_have_the_scores_of_the_full_curve(model: Counting) -> None:
    images, labels = squares(3, 3)
    maps = images.mean(1)
    options = {"steps": 64, "fill": "mean", "score": "max"}
    full = perturbation_curves(model, images, maps, labels, **options)
    few = perturbation_curves(model, images, maps, labels, **options, tolerance=0.01, internal_batch_size=5)
    for kind, curve in few.items():
        asked = list(range(0, 65, 64 // FIRST))
        torch.testing.assert_close(curve[:, asked], full[kind][:, asked])
    exact = perturbation_curves(model, images, maps, labels, **options, tolerance=1e-9)
    for kind, curve in exact.items():
        torch.testing.assert_close(curve, full[kind], rtol=0, atol=1e-6)


def test_a_batch_has_the_curves_of_its_images_alone(model: Counting) -> None:
    images, _ = squares(4, 4)
    maps = images.mean(1)
    options = {"steps": STEPS, "fill": 0.0, "tolerance": 0.01}
    together = perturbation_curves(model, images, maps, **options)
    for row in range(4):
        alone = perturbation_curves(model, images[row : row + 1], maps[row : row + 1], **options)
        for kind, curve in alone.items():
            torch.testing.assert_close(curve[0], together[kind][row], rtol=0, atol=1e-5)


def bound_by_hand(values: list[float]) -> float:
    """The bound of a curve with unknown places, part by part."""
    steps, known = len(values) - 1, [place for place, value in enumerate(values) if value == value]
    parts = pairwise(known)
    return sum((b - a - 1) * abs(values[b] - values[a]) / 2 / steps for a, b in parts)


def test_the_bound_is_that_of_every_curve_between_its_known_values() -> None:
    draw = torch.Generator().manual_seed(0)
    nan = float("nan")
    for _ in range(50):
        steps = int(torch.randint(4, 40, (), generator=draw))
        truth = torch.rand(steps + 1, generator=draw).sort().values
        if torch.rand((), generator=draw) < 0.5:
            truth = truth.flip(0)
        known = torch.rand(steps + 1, generator=draw) < 0.3
        known[0] = known[-1] = True
        curves = SparseCurves(truth[None, [0, -1]], steps)
        curves.values[0, known] = truth[known]
        bound = float(curves.bounds()[0].sum())
        assert bound == pytest.approx(bound_by_hand([float(v) if k else nan for v, k in zip(truth, known)]), abs=1e-6)
        error = torch.trapezoid(curves.filled()[0], dx=1 / steps) - torch.trapezoid(truth, dx=1 / steps)
        assert abs(float(error)) <= bound + 1e-6
        # The bound is reached: all unknown places at the higher, or at the lower, of their neighbors.
        held = truth.clone()
        for place in range(1, steps + 1):
            held[place] = truth[place] if known[place] else held[place - 1]
        worst = torch.trapezoid(curves.filled()[0], dx=1 / steps) - torch.trapezoid(held, dx=1 / steps)
        assert abs(float(worst)) == pytest.approx(bound, abs=1e-5)


def test_a_spike_between_two_places_is_not_seen_and_one_at_a_place_is_followed() -> None:
    def measured(peak: int) -> tuple[float, int]:
        truth = torch.full((1, STEPS + 1), 0.5)
        truth[0, peak - 3 : peak + 4] = 1.0
        curves = SparseCurves(truth[:, [0, -1]], STEPS)
        rows, places = curves.first_places()
        while len(rows):
            curves.values[rows, places] = truth[rows, places]
            rows, places = curves.next_places(0.001)
        error = torch.trapezoid(curves.filled(), dx=1 / STEPS) - torch.trapezoid(truth, dx=1 / STEPS)
        return abs(float(error)), int(curves.known.sum())

    assert measured(7)[0] > 0.01  # the documented limit: between 0 and 14
    error, places = measured(14)
    assert error <= 0.001
    assert places > FIRST + 1


def test_metrics_say_how_often_they_asked_and_share_the_pass(model: Counting) -> None:
    images, labels = squares(6, 5)
    maps = images.mean(1)
    full, few = Insertion(model, steps=STEPS, fill=0.0), Insertion(model, steps=STEPS, fill=0.0, tolerance=0.01)
    for metric in (full, few):
        for rows in torch.arange(6).split(4):
            metric.update(images[rows], maps[rows], labels[rows])
    assert float(few.compute()) == pytest.approx(float(full.compute()), abs=0.01)
    assert full.evaluations == STEPS + 1
    assert FIRST + 1 <= few.evaluations < 0.5 * STEPS
    assert few.curve.shape == (STEPS + 1,)
    assert float(torch.trapezoid(few.curve, dx=1 / STEPS)) == pytest.approx(float(few.compute()), abs=1e-5)
    found = perturbation_curves(model, images, maps, labels, steps=STEPS, fill=0.0, tolerance=0.01)
    deletion = Deletion(model, steps=STEPS, fill=0.0, tolerance=0.01)
    deletion.update(images, maps, labels)
    assert float(deletion.compute()) == pytest.approx(
        float(torch.trapezoid(found["deletion"], dx=1 / STEPS).mean()), abs=1e-5
    )


def test_wrong_tolerances_and_scores_that_are_nan_are_named(model: Counting) -> None:
    images, _ = squares(2, 6)
    with pytest.raises(SightlineError, match="tolerance is 0"):
        Insertion(model, tolerance=0)

    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = images.mean((2, 3))
            return torch.where((images == 0).any() & (len(images) > 2), torch.nan, logits)

    with pytest.raises(SightlineError, match="probabilities"):
        perturbation_curves(Broken(), images.clamp(0.1, 1), images.mean(1), steps=32, fill=0.0, tolerance=0.01)
