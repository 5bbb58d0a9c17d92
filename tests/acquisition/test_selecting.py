"""Which images are chosen, on models worked by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from networks import TinyCNN
from sightline import Batch, InputSpec
from sightline.acquisition import (
    QUERY_STRATEGIES,
    Pool,
    Ranking,
    Selection,
    create_query_strategy,
    select_samples,
)
from sightline.attacks.consistency import disturbed_images, explanation_consistency
from sightline.errors import SightlineError
from sightline.explainers import create_explainer

BUILT_IN = ["all", "ceal", "consistency", "coreset", "random", "uncertainty"]


class Says(nn.Module):
    """Classifies by the red and green of the first pixel: logits (log red, log green, log of what is left of 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        red, green = x[:, 0, 0, 0], x[:, 1, 0, 0]
        return self.head(torch.stack([red, green, 1 - red - green], 1).clamp_min(1e-12).log())


def pixels(*probabilities: tuple[float, float]) -> list[Batch]:
    """Batches of one image, of which `Says` says these first two probabilities; labels that nobody may read."""
    batches = []
    for red, green in probabilities:
        image = torch.zeros(1, 3, 2, 2)
        image[0, 0], image[0, 1] = red, green
        batches.append(Batch(image, torch.tensor([0])))
    return batches


SPREAD = [(0.98, 0.01), (0.45, 0.44), (0.40, 0.30), (0.50, 0.25), (0.499, 0.5)]
"""Least confident: 2, then 1; smallest lead: 4, then 1; most entropy: 2, then 3; the surest is 0."""


@pytest.mark.parametrize(
    ("by", "first", "score"),
    [("confidence", [2, 1], 0.6), ("margin", [4, 1], 0.999), ("entropy", [2, 3], -0.4 * math.log(0.4) - 0.6 * math.log(0.3))],
)  # fmt: skip
def test_uncertainty_selects_the_lowest_probability(by: str, first: list[int], score: float) -> None:
    selection = select_samples(create_query_strategy("uncertainty", by=by), Says(), pixels(*SPREAD), 2)
    assert selection.places == first
    assert selection.scores[0] == pytest.approx(score, abs=1e-5)
    assert selection.pseudo_labels == {}


def test_ceal_guesses_where_the_entropy_is_below_a_threshold_that_falls() -> None:
    sure = [(0.001, 0.998), (0.98, 0.01), (0.4, 0.3)]
    entropies = [-sum(p * math.log(p) for p in (a, b, 1 - a - b)) for a, b in sure]
    assert entropies[0] < 0.02 < entropies[1] < 0.2 < entropies[2]
    ceal = create_query_strategy("ceal", threshold=0.2, decay=0.09)
    assert select_samples(ceal, Says(), pixels(*sure), 1) == Selection([2], [pytest.approx(0.6)], {0: 1, 1: 0})
    assert select_samples(ceal, Says(), pixels(*sure), 1, round=2).pseudo_labels == {
        0: 1
    }  # 0.02 is left of the threshold
    assert select_samples(ceal, Says(), pixels(*sure), 1, round=3).pseudo_labels == {}  # and now less than nothing
    assert select_samples(ceal, Says(), pixels(*sure), 3).pseudo_labels == {}  # what gets a label needs no pseudo_label


def points(*reds: float) -> list[Batch]:
    return [Batch(torch.full((1, 3, 1, 1), red), torch.tensor([0])) for red in reds]


class Line(nn.Module):
    """An image's feature is its red."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[:, 0, 0])


def test_coreset_takes_the_farthest_and_counts_what_it_took() -> None:
    # From 0, 1 is the farthest; then 0.5, which is 0.5 from both; then 0.2, from 0; and last 0.9, which is 0.1 from 1.
    selection = select_samples("coreset", Line(), points(0.9, 0.5, 1.0, 0.2), 4, points(0.0))
    assert selection.places == [2, 1, 3, 0]
    assert selection.scores == pytest.approx([1.0, 0.5, 0.2, 0.1])
    # An image that is known already is worth nothing, and none comes twice.
    same = select_samples("coreset", Line(), points(0.3, 0.3, 0.3), 3, points(0.3))
    assert sorted(same.places) == [0, 1, 2]


def test_coreset_agrees_with_a_literal_k_center_over_chunks_of_known_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.acquisition.coreset.ROWS", 3)
    model = TinyCNN()
    pool, known = torch.rand(9, 3, 6, 6), torch.rand(7, 3, 6, 6)
    selection = select_samples(
        "coreset", model, [Batch(each, torch.zeros(len(each), dtype=torch.int64)) for each in pool.split(4)], 5,
        [Batch(known, torch.zeros(7, dtype=torch.int64))],
    )  # fmt: skip
    with torch.no_grad():
        features = model.head(model.features(torch.cat([known, pool])))
    centers, expected = list(range(7)), []
    for _ in range(5):
        left = [place for place in range(7, 16) if place not in centers]
        far = max(left, key=lambda place: min(float((features[place] - features[c]).norm()) for c in centers))
        centers.append(far)
        expected.append(far - 7)
    assert selection.places == expected


def test_consistency_takes_what_changes_most_under_an_attack_for_the_predicted_class() -> None:
    model = TinyCNN().eval()
    spec = InputSpec((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (8, 8))
    images = torch.rand(6, 3, 8, 8)
    wrong = 1 - (model(spec.normalize(images)).argmax(1) == 1).long()  # labels that must not matter
    batches = [Batch(images[:4], wrong[:4]), Batch(images[4:], wrong[4:])]
    layer = "features.2"
    selection = select_samples(
        create_query_strategy("consistency", explainer="xgradcam", eps=0.05),
        model,
        batches,
        6,
        layer=layer,
        input_spec=spec,
    )

    explain = create_explainer("xgradcam")
    predicted = model(spec.normalize(images)).argmax(1)
    maps = explain(model, images, predicted, layer, spec)
    changed = disturbed_images(model, images, maps, predicted, eps=0.05, input_spec=spec)
    unchanged = model(spec.normalize(changed)).argmax(1) == predicted
    weights = 1 - explanation_consistency(maps, explain(model, changed, predicted, layer, spec), unchanged)
    assert torch.tensor(selection.scores) == pytest.approx(weights[selection.places], abs=1e-6)
    assert selection.scores == sorted(selection.scores, reverse=True)


def test_equal_scores_are_drawn_rather_than_taken_in_order() -> None:
    class Indifferent(Ranking):
        def scores(self, pool: Pool) -> Tensor:
            return torch.zeros(40)

    pool = pixels(*[(0.5, 0.2)] * 40)
    drawn = [select_samples(Indifferent(), Says(), pool, 10, seed=seed).places for seed in range(3)]
    assert all(len(set(places)) == 10 for places in drawn)
    assert drawn[0] != drawn[1] != drawn[2]
    assert max(drawn[0]) >= 20  # not the first ones
    assert drawn[0] == select_samples(Indifferent(), Says(), pool, 10, seed=0).places
    assert drawn[0] != select_samples(Indifferent(), Says(), pool, 10, seed=0, round=1).places


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_acquisition_is_blind_to_labels_and_does_not_change_the_model(name: str) -> None:
    model = TinyCNN().train()
    images, known = torch.rand(6, 3, 8, 8), [Batch(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2]))]
    chosen = [
        select_samples(name, model, [Batch(images, torch.full((6,), label))], 3, known, layer="features.2")
        for label in (0, 2)
    ]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0].places)) == len(chosen[0].places) == (6 if name == "all" else 3)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert len(select_samples(name, model, [Batch(images, torch.zeros(6).long())], 99, known).places) == 6


def test_select_samples_invalid_arguments_raise() -> None:
    model, pool = Says(), pixels((0.5, 0.2))
    assert QUERY_STRATEGIES.names() == BUILT_IN
    for wrong, match in [
        (lambda: select_samples("consistancy", model, pool, 1), "did you mean 'consistency'"),
        (lambda: select_samples("random", model, pool, 0), "count is 0"),
        (lambda: select_samples("random", model, [], 1), "pool is empty"),
        (lambda: select_samples("coreset", model, pool, 1), "known is missing"),
        (lambda: create_query_strategy("uncertainty", by="chance"), "by is 'chance'"),
        (lambda: create_query_strategy("ceal", threshold=-1), "threshold is -1"),
        (lambda: create_query_strategy("consistency", perturbation="blur"), "perturbation is 'blur'"),
        (lambda: create_query_strategy("consistency", eps=0), "eps is 0"),
    ]:
        with pytest.raises(SightlineError, match=match):
            wrong()

    class Lost(Ranking):
        def scores(self, pool: Pool) -> Tensor:
            return torch.tensor([math.nan])

    with pytest.raises(SightlineError, match=r"NaN or infinity in the scores of the pool \(images \[0\]"):
        select_samples(Lost(), model, pool, 1)
