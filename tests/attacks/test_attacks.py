"""Attacks on linear models, where each has a closed form, and on a network, where each must do what it is for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.attacks import fgsm, fgv, hot_cold, lots
from sightline.errors import SightlineError

SHAPE = (2, 3, 4)  # two channels, which no conversion to grey could hide
SPEC = sl.InputSpec((0.5, 0.2), (0.25, 0.5), SHAPE[1:])
STD = torch.tensor(SPEC.std, dtype=torch.float64)[:, None, None]


def linear(classes: int = 3) -> nn.Sequential:
    """Logits W x + b; the third pixel of the first channel counts for nothing."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, classes)).double()
    with torch.no_grad():
        model[1].weight[:, 2] = 0
    return model


def images(count: int = 3) -> Tensor:
    """Pixels far enough from 0 and 1 that a step of 0.1 needs no clamping."""
    return 0.2 + 0.6 * torch.rand(count, *SHAPE, dtype=torch.float64)


def cross_entropy_gradient(model: nn.Sequential, x: Tensor, labels: Tensor) -> Tensor:
    """W^T (p - y), by hand."""
    p = torch.softmax(model(x), 1)
    p[torch.arange(len(x)), labels] -= 1
    return (p @ model[1].weight).view_as(x).detach()


# ---- closed forms ----


@pytest.mark.parametrize("labels", [None, 1, torch.tensor([2, 0, 1])], ids=["predicted", "one", "each"])
def test_fgsm_adds_the_sign_of_the_gradient(labels: Any) -> None:
    model, x = linear(), images()
    classes = model(x).argmax(1) if labels is None else torch.as_tensor(labels).expand(3)
    gradient = cross_entropy_gradient(model, x, classes)
    expected = x + 0.1 * torch.where(gradient >= 0, 1.0, -1.0)
    torch.testing.assert_close(fgsm(model, x, labels, eps=0.1), expected)
    torch.testing.assert_close(fgsm(model, x, labels, eps=0.1)[:, 0, 0, 2], x[:, 0, 0, 2] + 0.1)  # sign(0) = +1


def test_fgsm_weighs_each_pixel() -> None:
    model, x, maps = linear(), images(), torch.rand(3, 3, 4)
    maps[0] = 1
    gradient = cross_entropy_gradient(model, x, torch.tensor([0, 1, 2]))
    attacked = fgsm(model, x, torch.tensor([0, 1, 2]), eps=0.1, weights=1 - maps)
    for i in range(3):
        for c in range(2):
            sign = torch.where(gradient[i, c] >= 0, 1.0, -1.0)
            torch.testing.assert_close(attacked[i, c], x[i, c] + 0.1 * sign * (1 - maps[i].double()))
    assert torch.equal(attacked[0], x[0])


def test_fgv_adds_the_gradient_with_its_largest_value_scaled() -> None:
    model, x = linear(), images()
    gradient = cross_entropy_gradient(model, x, torch.tensor([0, 1, 2]))
    attacked = fgv(model, x, torch.tensor([0, 1, 2]), eps=0.1)
    for i in range(3):
        torch.testing.assert_close(attacked[i], x[i] + 0.1 * gradient[i] / gradient[i].abs().max())


def test_hot_cold_goes_towards_one_class_and_away_from_another() -> None:
    model, x = linear(), images()
    hot, cold = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    weight, logits = model[1].weight.detach(), model(x).detach()
    attacked, chosen = hot_cold(model, x, hot, cold, eps=0.1), hot_cold(model, x, eps=0.1)
    order = logits.argsort(1, descending=True)
    for i in range(3):
        for result, h, c in [(attacked, hot[i], cold[i]), (chosen, order[i, 1], order[i, 0])]:
            direction = (logits[i, h].abs() * weight[h] - logits[i, c] * weight[c]).view(SHAPE)
            torch.testing.assert_close(result[i], x[i] + 0.1 * direction / direction.abs().max())


@pytest.mark.parametrize("steps", [1, 2])
def test_lots_on_linear_features_takes_the_steps_of_the_gradient(steps: int) -> None:
    body, head = nn.Linear(24, 5).double(), nn.Linear(5, 3).double()
    model, x, wanted = nn.Sequential(nn.Flatten(), body, head), images(), torch.randn(3, 5, dtype=torch.float64)
    expected = x.clone()
    for _ in range(steps):
        gradient = ((body(expected.flatten(1)) - wanted) @ body.weight).view_as(x).detach()
        for i in range(3):
            expected[i] -= 0.01 * gradient[i] / gradient[i].abs().max()
    result = lots(model, x, wanted, iterations=steps, alpha=0.01)
    torch.testing.assert_close(result.images, expected)
    torch.testing.assert_close(result.distances, (body(expected.flatten(1)) - wanted).norm(dim=1))
    assert result.stopped == ["iterations"] * 3


def test_lots_takes_features_or_images_as_its_target() -> None:
    model, x, reference = TinyCNN(), torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    features = model.head(model.features(reference)).detach()
    options: dict[str, Any] = {"iterations": 4, "tau": 0.0}
    torch.testing.assert_close(lots(model, x, reference, **options).images, lots(model, x, features, **options).images)
    torch.testing.assert_close(
        lots(model, x, reference[0], **options).images, lots(model, x, features[0], **options).images
    )


# ---- what holds for all ----

STEPS: dict[str, Callable[..., Tensor]] = {
    "fgsm": lambda *args, **options: fgsm(*args, eps=0.1, **options),
    "fgv": lambda *args, **options: fgv(*args, eps=0.1, **options),
    "hot_cold": lambda *args, **options: hot_cold(*args, eps=0.1, **options),
    "lots": lambda *args, **options: lots(*args, iterations=3, alpha=0.1 / 3, **options).images,
}


@pytest.mark.parametrize("name", STEPS)
def test_normalisation_is_inside(name: str) -> None:
    model, x = linear(), images()
    same = linear()
    with torch.no_grad():  # the same function, with (x - mean) / std folded into the weights
        scaled = model[1].weight.view(3, *SHAPE) / STD
        mean = torch.tensor(SPEC.mean, dtype=torch.float64)[:, None, None]
        same[1].weight.copy_(scaled.flatten(1))
        same[1].bias.copy_(model[1].bias - (scaled * mean).flatten(1).sum(1))
    # "logits": the default features are the pixels themselves, normalised for one of the two
    options = {"layer": "logits"} if name == "lots" else {}
    torch.testing.assert_close(
        STEPS[name](model, x, input_spec=SPEC, **options), STEPS[name](same, x, **options), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("name", STEPS)
def test_images_stay_images_and_change_by_eps_at_most(name: str) -> None:
    model, x = TinyCNN(channels=2).double(), torch.rand(3, *SHAPE, dtype=torch.float64).round()
    x[2] = 0.5
    attacked = STEPS[name](model, x)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    change = (attacked - x).abs().amax((1, 2, 3))
    assert (change <= 0.1 + 1e-12).all()
    assert change[2] > 0.03


@pytest.mark.parametrize("name", STEPS)
def test_a_batch_equals_its_images_one_by_one(name: str) -> None:
    model, x = TinyCNN(channels=2).double(), images()
    torch.testing.assert_close(STEPS[name](model, x), torch.cat([STEPS[name](model, i[None]) for i in x]))


@pytest.mark.parametrize("name", STEPS)
def test_the_model_and_the_images_are_unchanged(name: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), TinyCNN(channels=2)).double().train()
    model[1].eval()
    x = images()
    before, state = x.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        inside = STEPS[name](model, x)
    attacked = STEPS[name](model, x)
    torch.testing.assert_close(inside, attacked)
    assert not attacked.requires_grad
    assert torch.equal(x, before)
    assert [model.training, model[0].training, model[1].training] == [True, True, False]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", STEPS)
def test_images_outside_0_1_are_an_error(name: str) -> None:
    with pytest.raises(
        SightlineError, match=r"images range over .*; expected \[0, 1\] because pixels are changed here"
    ):
        STEPS[name](linear(), 255 * images())
    with pytest.raises(SightlineError, match="images have 2 channels; the input spec is for 3"):
        STEPS[name](linear(), images(), input_spec=sl.InputSpec((0.5,) * 3, (0.5,) * 3, (3, 4)))


def test_images_without_a_gradient_stay_except_for_fgsm() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 3)).double()
    nn.init.zeros_(model[1].weight)
    x = images()
    assert torch.equal(fgv(model, x, eps=0.1), x)
    assert torch.equal(hot_cold(model, x, eps=0.1), x)
    torch.testing.assert_close(fgsm(model, x, eps=0.1), x + 0.1)


def test_each_attack_does_what_it_is_for() -> None:
    torch.manual_seed(2)
    model, x = TinyCNN(channels=2).double(), images()
    labels = model(x).argmax(1)

    def loss(x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), labels, reduction="none")

    held = model(x).detach()

    def gap(x: Tensor) -> Tensor:
        return held[:, 2].abs() * model(x)[:, 2] - held[:, 0] * model(x)[:, 0]

    assert (loss(fgsm(model, x, labels, eps=0.05)) > loss(fgv(model, x, labels, eps=0.05))).all()
    assert (loss(fgv(model, x, labels, eps=0.05)) > loss(x)).all()
    assert (gap(hot_cold(model, x, 2, 0, eps=0.05)) > gap(x)).all()


def test_attacks_invalid_arguments_raise() -> None:
    model, x = linear(), images()
    with pytest.raises(SightlineError, match=r"weights have shape \(3, 4\); expected \(3, 3, 4\)"):
        fgsm(model, x, eps=0.1, weights=torch.ones(3, 4))
    with pytest.raises(SightlineError, match=r"hot and cold are the same class for images \[1\]"):
        hot_cold(model, x, torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1]), eps=0.1)
    with pytest.raises(SightlineError, match=r"the model has classes 0 \.\. 2"):
        fgv(model, x, 3, eps=0.1)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.inf
    with pytest.raises(SightlineError, match=r"NaN or infinity in the gradients \(images \[0, 1, 2\]"):
        fgv(model, x, 0, eps=0.1)
