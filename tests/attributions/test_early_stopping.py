"""RISE, Partition SHAP and KernelSHAP stop by a stated tolerance: errors, prefixes of the full run, and counts."""

import logging
import math
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline.attributions.owen import owen_values
from sightline.attributions.perturbation import values_and_errors
from sightline.errors import SightlineError


class Counting(nn.Module):
    """A network whose answers differ a lot between masked images; it counts the images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(6, 6, 3, padding=1), nn.Tanh(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 3),
        )  # fmt: skip
        for parameter in self.parameters():
            parameter.data.mul_(3)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.net(images)


def images(count: int = 2) -> Tensor:
    waves = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)).cumsum(-1).cumsum(-2)
    return (waves * 0.7).sin() / 2 + 0.5


def taken(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The numbers that explainers have logged."""
    found = []
    for record in caplog.records:
        if "took" in record.message:
            first = record.message.split("took ")[1].split(" of")[0]
            found += [int(each) for each in first.strip("[]").split(",")]
    caplog.clear()
    return found


def rise(count: int, tolerance: float | None = None, seed: int = 0, size: int | None = None) -> sl.Explainer:
    return sl.create_explainer(
        "rise", masks=count, cells=4, seed=seed, tolerance=tolerance, raw=True, internal_batch_size=size
    )


def test_rise_that_stops_is_rise_with_so_many_masks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sightline")
    model = Counting().eval()
    found = rise(3000, 0.15)(model, images(4), 1)
    counts = taken(caplog)
    assert len(set(counts)) > 1  # each image has a number of its own
    assert all(count % 100 == 0 and count < 3000 for count in counts)
    assert model.seen == 4 + sum(counts)
    for row, count in enumerate(counts):
        # Masks are drawn all at once: the first `count` of 3000 are what another number of masks would draw as well.
        alone = rise(3000, 0.15, size=7)(model, images(4)[row : row + 1], 1)
        assert taken(caplog) == [count]
        torch.testing.assert_close(alone[0], found[row], rtol=1e-4, atol=1e-5)


def test_the_standard_error_of_rise_is_that_of_repeated_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sightline")
    model, image = Counting().eval(), images(1)
    runs = torch.stack([rise(400, seed=seed)(model, image, 1)[0] for seed in range(30)])
    share = float(runs.std(0).max() / (runs.mean(0).max() - runs.mean(0).min()))
    stopped = []
    for seed in range(5):
        rise(4000, share, seed)(model, image, 1)
        stopped += taken(caplog)
    # The error of 400 masks, found over 30 seeds, is reached near 400 masks. The error falls with the root of their number.
    assert 200 <= sorted(stopped)[2] <= 800


def test_rise_stops_at_once_where_no_mask_changes_the_score() -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    nn.init.zeros_(constant[1].weight)
    seen: list[int] = []
    constant.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    assert not sl.create_explainer("rise", masks=1000, tolerance=0.01)(constant.eval(), images(1)).any()
    assert sum(seen) == 101


def test_partition_shap_finishes_images_whose_parts_are_small() -> None:
    model, given = Counting().eval(), images(3)
    full = owen_values(model, given, 1, evaluations=600)
    assert full.evaluations.tolist() == [600] * 3
    away, counts = [], []
    for tolerance in (0.1, 0.03, 0.01):
        model.seen = 0
        few = owen_values(model, given, 1, evaluations=600, tolerance=tolerance)
        assert (
            model.seen <= int(few.evaluations.sum()) + 3 * 10
        )  # calls hold five pairs, of which the last may be dropped
        counts.append(few.evaluations)
        away.append((few.values - full.values).norm())
        # What is measured stays exact: the values still sum to the difference.
        torch.testing.assert_close(few.values.sum((1, 2, 3)), few.full - few.base, rtol=1e-4, atol=1e-5)
    assert (counts[0] < counts[1]).all()
    assert (counts[1] < counts[2]).all()
    assert (counts[2] < 300).all()
    assert away[0] > away[1] > away[2]
    for row, count in enumerate(counts[2].tolist()):
        alone = owen_values(model, given[row : row + 1], 1, evaluations=600, tolerance=0.01, internal_batch_size=3)
        assert alone.evaluations.tolist() == [count]
        torch.testing.assert_close(alone.values[0], few.values[row], rtol=1e-4, atol=1e-6)


def test_partition_shap_spends_where_the_model_looks() -> None:
    """Of the mean of one quarter, the parts elsewhere carry nothing, and are never split."""

    class Quarter(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            score = pixels[:, :, :2, :2].mean((1, 2, 3))
            return torch.stack([score, -score], 1)

    pixels = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    options = {"masker": 0.0, "output": "logits", "evaluations": 10_000}
    full, few = (owen_values(Quarter(), pixels, 0, **options, tolerance=t) for t in (None, 1e-6))
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., :2, :2] = pixels[..., :2, :2] / 4
    torch.testing.assert_close(few.values, expected, rtol=1e-4, atol=1e-6)
    # Of a part at depth d there are 2^d contexts: 1 + 2 + 4 + 2 x 8 pairs of evaluations, and 1 + 4 + 16 + 64 of everything.
    assert full.evaluations.tolist() == [2 + 2 * 85]
    assert few.evaluations.tolist() == [2 + 2 * 23]


def shapley(worth: dict[frozenset[int], float], players: int) -> Tensor:
    """Shapley values by their definition."""
    values = torch.zeros(players).double()
    for player in range(players):
        others = [p for p in range(players) if p != player]
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for chosen in combinations(others, size):
                values[player] += weight * (worth[frozenset((*chosen, player))] - worth[frozenset(chosen)])
    return values


def test_errors_of_kernel_shap_are_those_of_repeated_draws() -> None:
    players, draw = 6, torch.Generator().manual_seed(0)
    subsets = [frozenset(s) for size in range(players + 1) for s in combinations(range(players), size)]
    worth = {s: float(torch.randn((), generator=draw)) for s in subsets}
    sizes = torch.tensor([1 / (k * (players - k)) for k in range(1, players)])
    found, errors = [], []
    for _ in range(200):
        shown = torch.zeros(300, players)
        shown[0] = 1
        for row in shown[2:]:
            size = 1 + int(torch.multinomial(sizes, 1, generator=draw))
            row[torch.randperm(players, generator=draw)[:size]] = 1
        scores = torch.tensor([worth[frozenset(row.nonzero()[:, 0].tolist())] for row in shown])
        values, error = values_and_errors(shown, scores)
        found.append(values)
        errors.append(error)
    spread = torch.stack(found).std(0)
    assert ((torch.stack(errors).mean(0) / spread - 1).abs() < 0.2).all()
    mean = torch.stack(found).mean(0)
    assert ((mean - shapley(worth, players)).abs() < 4 * spread / 200**0.5 + 0.02).all()


def test_kernel_shap_that_stops_is_kernel_shap_with_so_many_samples(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("captum")
    caplog.set_level(logging.INFO, "sightline")
    model, options = Counting().eval(), {"patch": 4, "raw": True}
    found = sl.create_explainer("kernel_shap", samples=4000, tolerance=0.05, **options)(model, images(2), 1)
    counts = taken(caplog)
    assert all(count % 128 == 0 and count < 4000 for count in counts)
    small = sl.create_explainer("kernel_shap", samples=4000, tolerance=0.05, internal_batch_size=5, **options)
    torch.testing.assert_close(small(model, images(2), 1), found, rtol=1e-4, atol=1e-5)
    assert taken(caplog) == counts
    for row, count in enumerate(counts):
        plain = sl.create_explainer("kernel_shap", samples=count, **options)(model, images(2)[row : row + 1], 1)
        torch.testing.assert_close(plain[0], found[row], rtol=1e-4, atol=1e-5)
        assert taken(caplog) == [count]


@pytest.mark.parametrize("name", ["rise", "partition_shap", "weighted_shap", "kernel_shap"])
def test_a_tolerance_of_zero_is_named(name: str) -> None:
    with pytest.raises(SightlineError, match="tolerance is 0"):
        sl.create_explainer(name, tolerance=0)(Counting().eval(), images(1))
