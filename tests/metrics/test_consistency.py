import math

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from region_classifier import RegionClassifier
from sightline.metrics import ExplanationConsistency, Observation, Scorer, disturbed_images, explanation_consistency


def brightness(
    model: nn.Module, images: Tensor, targets: Tensor, layer: object = None, input_spec: object = None
) -> Tensor:
    """An explainer that one can follow by hand: the map is the image's first channel."""
    return images[:, 0]


def test_explanation_consistency_follows_its_equation() -> None:
    maps, again = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.5, 1.0]]])
    psi = {"tanh": math.tanh, "softsign": lambda d: d / (1 + d), "arctan1": lambda d: 2 / math.pi * math.atan(d)}
    for name, function in psi.items():
        for distance, apart in (("mean", 1.25), ("sum", 0.25)):
            value = explanation_consistency(maps, again, torch.tensor([True]), name, distance)
            torch.testing.assert_close(value, torch.tensor([1 - function(apart)]))
            assert explanation_consistency(maps, again, torch.tensor([False]), name, distance).tolist() == [0]
            assert explanation_consistency(maps, maps, torch.tensor([True]), name, distance).tolist() == [1]


def test_maps_of_zeros_agree_and_sums_over_many_pixels_do_not() -> None:
    yes = torch.tensor([True])
    zero, one = torch.zeros(1, 64, 64), torch.full((1, 64, 64), 0.2)
    assert explanation_consistency(zero, zero, yes).item() == 1
    torch.testing.assert_close(explanation_consistency(zero, one, yes), torch.tensor([1 - math.tanh(0.4)]))
    assert explanation_consistency(zero, one, yes, distance="sum").item() == 0


def test_fgsm_leaves_what_the_map_points_out(region: Tensor) -> None:
    # The attack on class 0 darkens the region; elsewhere the gradient is 0, whose sign is +1.
    model, images = RegionClassifier(region), torch.full((1, 3, 8, 8), 0.6)
    weight = torch.linspace(0, 1, 64).view(1, 8, 8)
    changed = disturbed_images(model, images, weight, torch.tensor([0]))
    expected = 0.6 + 0.1 * torch.where(region, -1, 1) * (1 - weight)
    torch.testing.assert_close(changed, expected[:, None].expand(1, 3, 8, 8))
    bright = disturbed_images(model, images + 0.38, weight * 0, torch.tensor([1]), eps=0.1)
    assert bright.max() == 1  # clamped


def test_disturbed_images_fade_to_zero_or_the_mean(region: Tensor) -> None:
    model, images = RegionClassifier(region), torch.rand(2, 3, 8, 8)
    maps = torch.rand(2, 8, 8)
    labels = torch.tensor([0, 1])
    zero = disturbed_images(model, images, maps, labels, perturbation="zero")
    torch.testing.assert_close(zero, images * maps[:, None])
    mean = disturbed_images(model, images, maps, labels, perturbation="mean")
    colour = images.mean((2, 3), keepdim=True)
    torch.testing.assert_close(mean, images * maps[:, None] + colour * (1 - maps[:, None]))


def test_explanation_consistency_metric_averages_what_the_function_gives(region: Tensor) -> None:
    # Class 0 above a mean of 0.5. With maps of zeros, every pixel of the region moves by 0.1 against the label.
    model = RegionClassifier(region, slope=4, offset=-2)
    levels = torch.tensor([0.9, 0.55, 0.2])
    images = levels[:, None, None, None].expand(3, 3, 8, 8)
    labels = torch.tensor([0, 0, 0])
    metric = ExplanationConsistency(model, brightness)
    metric.update(images, torch.zeros(3, 8, 8), labels=labels)
    again = levels[:, None, None] + 0.1 * torch.where(region, -1.0, 1.0)
    stays = torch.tensor([True, False, True])  # 0.55 - 0.1 is class 1
    expected = torch.where(stays, 1 - torch.tanh(10 * again.clamp(0, 1).square().mean((1, 2))), 0.0)
    torch.testing.assert_close(metric.per_image(), expected)
    torch.testing.assert_close(metric.compute(), expected.mean())

    predicted = ExplanationConsistency(model, brightness)
    predicted.update(images[2:], torch.zeros(1, 8, 8))  # without labels, against the prediction: class 1 goes up
    again = 0.2 + 0.1 * torch.ones(8, 8)
    torch.testing.assert_close(predicted.per_image(), (1 - torch.tanh(10 * again.square().mean()))[None])


def test_metrics_of_one_attack_share_it(region: Tensor) -> None:
    model, images = RegionClassifier(region), torch.rand(2, 3, 8, 8)
    scorer = Scorer(model)
    probabilities = scorer(images)
    calls = []

    def explain(images: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(images))
        return images[:, 0]

    observation = Observation(
        images=images,
        maps=images[:, 0],
        targets=probabilities.argmax(1),
        probabilities=probabilities,
        scorer=scorer,
        explain=explain,
    )
    for options in ({}, {"psi": "softsign"}, {"distance": "sum"}):
        ExplanationConsistency(model, brightness, **options).update_batch(observation)
    assert calls == [2]
    ExplanationConsistency(model, brightness, perturbation="mean").update_batch(observation)
    assert calls == [2, 2]


def test_explanation_consistency_invalid_arguments_raise(region: Tensor) -> None:
    model = RegionClassifier(region)
    maps = torch.rand(1, 8, 8)
    with pytest.raises(sl.SightlineError, match="psi is 'tan'; expected 'tanh'"):
        ExplanationConsistency(model, brightness, psi="tan")
    with pytest.raises(sl.SightlineError, match="distance is 'max'"):
        explanation_consistency(maps, maps, torch.tensor([True]), distance="max")
    with pytest.raises(sl.SightlineError, match="perturbation is 'blur'"):
        disturbed_images(model, torch.rand(1, 3, 8, 8), maps, torch.tensor([0]), perturbation="blur")
    with pytest.raises(sl.SightlineError, match="maps range"):
        explanation_consistency(maps * 2 + 1, maps, torch.tensor([True]))
