import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from torch import Tensor, nn
from torchmetrics.functional import pearson_corrcoef

import sightline as sl
from region_classifier import RegionClassifier
from sightline.explainers import normalize_maps
from sightline.metrics import (
    ADCC,
    AverageDrop,
    AverageIncrease,
    Coherency,
    Complexity,
    adcc,
    average_drop,
    average_increase,
    coherency,
    complexity,
    explanation_images,
    filled,
)


def brightness(
    model: nn.Module, images: Tensor, targets: Tensor, layer: object = None, input_spec: object = None
) -> Tensor:
    """An explainer that one can follow by hand: the map is the image's first channel."""
    return normalize_maps(images[:, 0])


def test_drop_and_increase_by_hand() -> None:
    clean, explained = torch.tensor([0.8, 0.5, 0.5, 0.0]), torch.tensor([0.2, 0.5, 0.9, 0.0])
    torch.testing.assert_close(average_drop(clean, explained), torch.tensor([0.75, 0, 0, 0]))
    assert average_increase(clean, explained).tolist() == [0, 0, 1, 0]


def test_metrics_of_a_region_mean_have_a_closed_form(region: Tensor) -> None:
    model = RegionClassifier(region, slope=4, offset=-1)
    images = torch.ones(2, 3, 8, 8)
    maps = torch.stack([region * 0.5, (~region).float()])  # the region's mean falls to 0.5, and to 0
    p, half, none = torch.sigmoid(torch.tensor([3.0, 1.0, -1.0]))
    drop, increase = AverageDrop(model), AverageIncrease(model)
    drop.update(images, maps)
    increase.update(images, maps)
    torch.testing.assert_close(drop.per_image(), torch.stack([(p - half) / p, (p - none) / p]))
    assert increase.compute() == 0
    increase.update(images, maps, 1)  # what the first class loses, the second gains
    assert increase.compute() == 0.5


def test_the_rest_of_the_image_is_black_or_blurred() -> None:
    images, maps = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    torch.testing.assert_close(explanation_images(images, maps), images * maps[:, None])
    blurred = explanation_images(images, maps, "blur")
    torch.testing.assert_close(blurred, images * maps[:, None] + filled(images, "blur") * (1 - maps[:, None]))
    torch.testing.assert_close(explanation_images(images, torch.ones_like(maps), "blur"), images)


@pytest.mark.parametrize("spec", [None, sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (8, 8))])
def test_drop_and_increase_agree_with_pytorch_grad_cam(network: nn.Module, spec: sl.InputSpec | None) -> None:
    images, maps = torch.rand(12, 3, 8, 8, dtype=torch.float64), torch.rand(12, 8, 8)
    drop, increase = AverageDrop(network, input_spec=spec), AverageIncrease(network, input_spec=spec)
    drop.update(images, maps, 2)
    increase.update(images, maps, 2)

    class Probabilities(nn.Module):  # multiplies before it normalises, as we do
        def forward(self, x: Tensor) -> Tensor:
            return network(x if spec is None else spec.normalize(x)).softmax(1)

    network.eval()
    peer = Probabilities()
    targets = [lambda output: output[2]] * 12
    clean = peer(images)[:, 2].detach().numpy()
    np.testing.assert_allclose(
        drop.per_image() * clean, DropInConfidence()(images, maps.numpy(), targets, peer), atol=1e-6
    )
    np.testing.assert_array_equal(increase.per_image(), IncreaseInConfidence()(images, maps.numpy(), targets, peer))
    assert 0 < increase.compute() < 1


def test_coherency_is_half_of_one_plus_pearson() -> None:
    maps, again = torch.rand(5, 6, 7), torch.rand(5, 6, 7)
    peer = torch.stack([pearson_corrcoef(a.flatten(), b.flatten()) for a, b in zip(maps, again)])
    torch.testing.assert_close(coherency(maps, again), (1 + peer) / 2)
    torch.testing.assert_close(coherency(maps, 0.2 + 0.5 * maps), torch.ones(5))
    torch.testing.assert_close(coherency(maps, 1 - maps), torch.zeros(5), atol=1e-6, rtol=0)


def test_constant_maps_agree_with_nothing() -> None:
    maps = torch.rand(1, 6, 7)
    for constant in (torch.zeros_like(maps), torch.full_like(maps, 0.1)):
        assert coherency(maps, constant).tolist() == coherency(constant, maps).tolist() == [0.5]
        assert coherency(constant, constant).tolist() == [0.5]


def test_adcc_is_a_harmonic_mean() -> None:
    terms = torch.tensor([[0.9, 0.2, 0.1], [1, 0, 0], [0, 0.2, 0.1], [0.9, 1, 0.1], [0.9, 0.2, 1]]).T
    expected = torch.tensor([3 / (1 / 0.9 + 1 / 0.8 + 1 / 0.9), 1, 0, 0, 0])
    torch.testing.assert_close(adcc(*terms), expected)


def test_coherency_and_adcc_explain_the_explanation_image(network: nn.Module) -> None:
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    maps = brightness(network, images, torch.zeros(4))
    again = normalize_maps(images[:, 0] * maps)
    metric = Coherency(network, brightness)
    metric.update(images, maps)
    torch.testing.assert_close(metric.per_image(), coherency(maps, again).float())

    total, drop = ADCC(network, brightness), AverageDrop(network)
    total.update(images, maps, 1)
    drop.update(images, maps, 1)
    expected = adcc(coherency(maps, again), complexity(maps), drop.per_image())
    torch.testing.assert_close(total.per_image(), expected.float())


def test_explainers_are_found_by_name(network: nn.Module) -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    maps = sl.explain(network, images, "gaussian")
    metric = Coherency(network, "gaussian")
    metric.update(images, maps)
    torch.testing.assert_close(metric.compute(), torch.tensor(1.0))  # a map that ignores the image agrees with itself
    with pytest.raises(sl.SightlineError, match="gradcam"):
        Coherency(network, "gradcamm")


def test_complexity_is_the_mean() -> None:
    metric = Complexity()
    metric.update(torch.stack([torch.zeros(4, 4), torch.eye(4)]))
    assert metric.compute() == 0.125


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-1, 1))
def test_coherency_ignores_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    maps, again = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(coherency(maps, again * scale + shift), coherency(maps, again), atol=1e-4, rtol=0)
    torch.testing.assert_close(coherency(again, maps), coherency(maps, again))


def test_explanation_image_invalid_arguments_raise(region: Tensor) -> None:
    model, images = RegionClassifier(region), torch.ones(1, 3, 8, 8)
    with pytest.raises(sl.SightlineError, match=r"expected \[0, 1\]"):
        AverageDrop(model).update(images, torch.full((1, 8, 8), 2.0))
    with pytest.raises(sl.SightlineError, match="NaN"):
        AverageIncrease(model).update(images, torch.full((1, 8, 8), torch.nan))
    with pytest.raises(sl.SightlineError, match=r"NaN or infinity in the model\'s probabilities \(images \[0\]"):
        AverageDrop(RegionClassifier(region, slope=torch.nan)).update(images, torch.ones(1, 8, 8))
    with pytest.raises(sl.SightlineError, match="'black' or 'blur'"):
        explanation_images(images, torch.ones(1, 8, 8), "white")
    with pytest.raises(sl.SightlineError, match="NaN"):
        coherency(torch.ones(1, 8, 8), torch.full((1, 8, 8), torch.nan))
