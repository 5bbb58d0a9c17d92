"""Heads fitted to their optimum, against scikit-learn, closed forms and invariances."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from fitted import assert_same_logits, by_sklearn
from sightline.errors import SightlineError
from sightline.heads import (
    STRENGTHS,
    balanced_weights,
    choose_strength,
    fit_attention,
    fit_linear,
    fit_prototypes,
)
from sightline.heads.minimum import minimize


def points(images: int = 60, dimensions: int = 7, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of very different scales, one of them constant, whose classes overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    features = torch.randn(images, dimensions, generator=generator, dtype=torch.float64)
    features[:, :classes] += F.one_hot(labels, classes)
    features = features * torch.logspace(-3, 2, dimensions) + torch.linspace(-50, 40, dimensions)
    features[:, -1] = 0.3
    return features, labels


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 3.0])
def test_several_classes_as_scikit_learn_has_it(strength: float) -> None:
    features, labels = points()
    head = fit_linear(features, labels, strength=strength)
    assert_same_logits(head, by_sklearn(features, labels, strength), features)
    assert head[0][:, -1].abs().max() == 0  # a constant feature says nothing


def test_weights_as_scikit_learn_has_them_and_as_repeated_images() -> None:
    features, labels = points()
    weights = torch.arange(60) % 4
    head = fit_linear(features, labels, weights, strength=0.01)
    assert_same_logits(head, by_sklearn(features, labels, 0.01, weights.double()), features)
    repeated = fit_linear(features.repeat_interleave(weights, 0), labels.repeat_interleave(weights), strength=0.01)
    assert_same_logits(head, repeated, features)


def test_fit_linear_with_one_logit_equals_sklearn() -> None:
    features, labels = points(classes=2)
    head = fit_linear(features, labels, strength=0.01, classes=1)
    assert head[0].shape == (1, 7)
    assert head[1].shape == (1,)
    assert_same_logits(head, by_sklearn(features, labels, 0.01), features)


def test_several_labels_are_a_regression_each() -> None:
    features, labels = points()
    several = torch.stack([labels == 0, labels > 0, features[:, 1] > features[:, 1].median()], 1).long()
    weight, bias = fit_linear(features, several, strength=0.02)
    for column in range(3):
        head = weight[column, None], bias[column, None]
        assert_same_logits(head, by_sklearn(features, several[:, column], 0.02), features)


def test_the_scaling_is_folded_in_whatever_the_units() -> None:
    features, labels = points()
    units, shift = torch.logspace(-2, 3, 7), torch.linspace(100, -100, 7)
    one = fit_linear(features, labels, strength=0.1)
    other = fit_linear((features * units + shift), labels, strength=0.1)
    torch.testing.assert_close(features @ one[0].T + one[1], (features * units + shift) @ other[0].T + other[1])


def test_a_start_changes_nothing_and_half_precision_is_read() -> None:
    features, labels = points()
    head = fit_linear(features, labels, strength=0.1)
    again = fit_linear(features, labels, strength=0.1, start=fit_linear(features, labels, strength=3.0))
    torch.testing.assert_close(again, head, rtol=1e-5, atol=1e-5)
    scaled = F.layer_norm(features.T, (60,)).T
    expected = fit_linear(scaled, labels, strength=0.1)
    torch.testing.assert_close(fit_linear(scaled.half(), labels, strength=0.1), expected, rtol=0.02, atol=0.02)


def test_a_tolerance_ends_the_search_where_the_gradient_is_that_small() -> None:
    features, labels = points()
    scaled = (features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-9)

    def gradient(tolerance: float) -> float:
        weight, bias = fit_linear(features, labels, strength=0.1, tolerance=tolerance)
        slopes = (weight * features.std(0, correction=0)).clone().requires_grad_()
        free = (bias + weight @ features.mean(0)).clone().requires_grad_()
        loss = F.cross_entropy(scaled @ slopes.T + free, labels) + 0.05 * slopes.square().sum()
        return max(part.abs().max().item() for part in torch.autograd.grad(loss, (slopes, free)))

    assert gradient(1e-8) <= 1.01e-8 < gradient(1e-2) <= 1.01e-2
    with pytest.raises(SightlineError, match="tolerance"):
        fit_linear(features, labels, strength=0.1, tolerance=0)
    inside = (torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    with pytest.raises(SightlineError, match="tolerance"):
        fit_attention(torch.randn(4, 3, 2, 2), inside, 1 - inside, tolerance=-1.0)


def test_separable_classes_have_an_optimum_too() -> None:
    labels = torch.arange(40) % 2
    features = (2.0 * labels - 1)[:, None] + torch.linspace(-0.1, 0.1, 40)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = fit_linear(features, labels, strength=1e-4, classes=1)
    assert_same_logits(head, by_sklearn(features, labels, 1e-4), features)


def test_balanced_weights_give_every_stratum_the_same_sum() -> None:
    strata = torch.tensor([5, 5, 5, -1, 2, 2])
    weights = balanced_weights(strata)
    assert weights.tolist() == pytest.approx([2 / 3] * 3 + [2] + [1] * 2)
    features, labels = points()
    skewed = torch.cat([torch.arange(60), torch.arange(0, 60, 3).repeat(4)])
    head = fit_linear(features[skewed], labels[skewed], balanced_weights(labels[skewed]), strength=0.1)
    assert_same_logits(head, fit_linear(features, labels, strength=0.1), features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.ones(6, 2, 1)}, r"expected \(N, D\)"),
        ({"features": torch.ones(6, 2, dtype=torch.int64)}, "expected a float type"),
        (
            {"features": torch.tensor([[1.0], [2], [torch.nan], [0], [1], [3]])},
            r"NaN or infinity in features .images \[2\]",
        ),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels have shape \(3,\); expected \(6,\)"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, -1])}, r"labels range over \[-1, 2\]"),
        ({"labels": torch.rand(6)}, "expected class indices"),
        ({"classes": 2}, r"expected class indices 0 \.\. 1"),
        ({"classes": 5}, r"too little of 2 classes \(such as class 3\)"),
        ({"weights": torch.tensor([1.0, 1, 0, 1, 1, 0])}, r"too little of 1 classes \(such as class 2\)"),
        ({"weights": torch.ones(5)}, r"weights have shape \(5,\)"),
        ({"weights": -torch.ones(6)}, "expected numbers >= 0"),
        ({"labels": torch.tensor([[1, 1], [0, 1]] * 3)}, "images with it and images without it"),
        ({"labels": torch.tensor([[1, 2], [0, 1]] * 3)}, "expected 1 for every class"),
        ({"labels": torch.zeros(6, dtype=torch.int64)}, "expected at least two classes"),
        ({"strength": 0.0}, "strength is 0.0; expected a number > 0"),
    ],
)
def test_fit_linear_invalid_arguments_raise(change: dict[str, object], message: str) -> None:
    keys: dict[str, object] = {"features": torch.rand(6, 2), "labels": torch.arange(6) % 3, "strength": 1.0}
    with pytest.raises(SightlineError, match=message):
        fit_linear(**(keys | change))  # type: ignore[arg-type]


def test_a_fit_that_does_not_end_warns() -> None:
    with pytest.warns(UserWarning, match="largest gradient"):
        minimize(
            lambda x: [x], [lambda x: x.exp().sum()], torch.zeros(1, dtype=torch.float64), 0.0
        )  # it has no minimum


# ---- the strength ----


def test_the_strength_is_the_best_on_validation_and_of_equal_ones_the_strongest() -> None:
    features, labels = points(36, 20)
    validation = points(90, 20, seed=1)
    strength, found = choose_strength(features, labels, *validation)
    assert tuple(found) == STRENGTHS
    for each, value in found.items():
        weight, bias = fit_linear(features, labels, strength=each)
        accuracy = ((validation[0] @ weight.T + bias).argmax(1) == validation[1]).double().mean()
        assert value == pytest.approx(accuracy.item(), abs=1e-6)
    assert len(set(found.values())) > 1
    assert strength == max(each for each, value in found.items() if value == max(found.values()))


def test_the_worst_class_or_group_can_decide() -> None:
    features, labels = points(36, 20)
    validation, answers = points(90, 20, seed=1)
    groups = torch.arange(90) % 2 - 1  # half of them belong to none
    for given in (None, groups):
        _, found = choose_strength(
            features, labels, validation, answers, measure="worst", groups=given, strengths=(1.0, 0.01)
        )
        for strength, value in found.items():
            weight, bias = fit_linear(features, labels, strength=strength)
            hits = ((validation @ weight.T + bias).argmax(1) == answers).double()
            members = [answers == c for c in range(3)] if given is None else [groups == 0]
            assert value == pytest.approx(min(hits[each].mean().item() for each in members), abs=1e-6)


def test_choose_strength_takes_one_logit_and_several_labels() -> None:
    features, labels = points(40, 10, classes=2)
    one, found = choose_strength(features, labels, features, labels, classes=1, strengths=(1.0, 0.1))
    weight, bias = fit_linear(features, labels, strength=1.0, classes=1)
    hits = ((features @ weight.T + bias)[:, 0] > 0).long() == labels
    assert found[1.0] == pytest.approx(hits.double().mean().item())
    assert one in (1.0, 0.1)
    several = F.one_hot(labels, 2)
    choose_strength(features, several, features, several)
    with pytest.raises(SightlineError, match="expected 'mean', or groups"):
        choose_strength(features, several, features, several, measure="worst")


# ---- prototypes ----


def test_prototypes_are_the_nearest_means_written_out() -> None:
    features, labels = points()
    weights = torch.arange(60) % 3 + 1.0
    weight, bias = fit_prototypes(features, labels, weights)
    share = weights.double() / weights.sum()
    mean = share @ features
    deviation = (share @ (features - mean) ** 2).sqrt()
    scaled = (features - mean)[:, :-1] / deviation[:-1]
    means = torch.stack([(scaled[labels == c] * weights[labels == c, None]).sum(0) for c in range(3)])
    means = means / torch.stack([weights[labels == c].sum() for c in range(3)])[:, None]
    expected = (-(torch.cdist(scaled, means) ** 2)).softmax(1)
    torch.testing.assert_close((features @ weight.T + bias).softmax(1), expected)

    two = (labels > 0).long()
    pair, single = fit_prototypes(features, two), fit_prototypes(features, two, classes=1)
    logits = features @ pair[0].T + pair[1]
    torch.testing.assert_close((features @ single[0].T + single[1])[:, 0], logits[:, 1] - logits[:, 0])
    with pytest.raises(SightlineError, match="an image has one prototype"):
        fit_prototypes(features, F.one_hot(labels))


# ---- the attention ----


def fields(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features (5, 4, 3, 3) with the share of the object and of the background; one image has no object."""
    generator = torch.Generator().manual_seed(3)
    inside = torch.rand(5, 3, 3, generator=generator, dtype=torch.float64)
    outside = (1 - inside) * (torch.rand(5, 3, 3, generator=generator) > 0.2)
    inside[2] = 0
    features = torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64) * 3 + 7
    features[:, 0] += 5 * inside
    return features.to(dtype), inside, outside


def test_the_attention_is_the_optimum_that_scipy_finds() -> None:
    features, inside, outside = fields()
    known = [0, 1, 3, 4]
    rows, counts = features[known].movedim(1, -1).reshape(-1, 4), (inside + outside)[known].flatten()
    mean = (counts @ rows) / counts.sum()
    deviation = ((counts @ (rows - mean) ** 2) / counts.sum()).sqrt()
    scaled = ((rows - mean) / deviation).numpy()
    shares = [(part[known] / (inside + outside)[known].sum((1, 2), keepdim=True) / 4).flatten().numpy()
              for part in (inside, outside)]  # fmt: skip

    def loss(v: np.ndarray) -> float:
        logits = scaled @ v[:4] + v[4]
        losses = shares[0] * np.logaddexp(0, -logits) + shares[1] * np.logaddexp(0, logits)
        return float(losses.sum() + 0.005 * (v[:4] ** 2).sum())

    best = scipy_minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    weight, bias = fit_attention(features, inside, outside, strength=0.01)
    assert weight.shape == (1, 4)
    assert bias.shape == (1,)
    ours = features.movedim(1, -1)[known].reshape(-1, 4) @ weight[0] + bias
    np.testing.assert_allclose(ours.numpy(), scaled @ best[:4] + best[4], rtol=1e-4, atol=1e-5)


def test_single_and_half_precision_agree_with_double() -> None:
    expected = fit_attention(*fields())
    torch.testing.assert_close(fit_attention(*fields(torch.float32)), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(fit_attention(*fields(torch.float16)), expected, rtol=5e-2, atol=5e-2)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit_attention(*fields())
    monkeypatch.setattr("sightline.heads.attention.CHUNK", 40)
    torch.testing.assert_close(fit_attention(*fields()), expected, rtol=1e-5, atol=1e-5)


def test_fit_attention_invalid_arguments_raise() -> None:
    features, inside, outside = fields()
    with pytest.raises(SightlineError, match=r"inside has shape \(5, 9\); expected \(5, 3, 3\)"):
        fit_attention(features, inside.flatten(1), outside)
    with pytest.raises(SightlineError, match="outside holds NaN, infinity or a negative number"):
        fit_attention(features, inside, -outside)
    with pytest.raises(SightlineError, match="expected an object in at least one image"):
        fit_attention(features, 0 * inside, outside)
