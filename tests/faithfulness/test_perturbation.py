import math

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from region_classifier import RegionClassifier
from sightline.metrics import Deletion, Insertion, area_under_curve, filled, perturbation_curves


def literal_curve(
    model: nn.Module, image: Tensor, other: Tensor, saliency: Tensor, target: int, steps: int
) -> list[float]:
    """RISE's loop, one pixel list at a time: from `image` towards `other` in the order of `saliency`."""
    order = sorted(range(saliency.numel()), key=lambda i: (-saliency.flatten()[i].item(), i))
    scores = []
    for step in range(steps + 1):
        current = image.clone().flatten(1)
        for pixel in order[: step * saliency.numel() // steps]:
            current[:, pixel] = other.flatten(1)[:, pixel]
        scores.append(model(current.view_as(image)[None]).softmax(1)[0, target].item())
    return scores


def test_curves_of_a_region_mean_have_a_closed_form(region: Tensor) -> None:
    model = RegionClassifier(region)
    maps = region.float()[None] + torch.rand(1, 8, 8) * 0.1
    curves = perturbation_curves(model, torch.ones(1, 3, 8, 8), maps, 0, steps=64, fill=0.0)
    present = torch.arange(65).clamp(max=16) / 16
    torch.testing.assert_close(curves["insertion"][0], torch.sigmoid(4 * present - 1))
    torch.testing.assert_close(curves["deletion"][0], torch.sigmoid(4 * (1 - present) - 1))


def test_area_of_a_linear_curve_is_exact() -> None:
    curves = torch.stack([torch.linspace(0, 1, 225), torch.full((225,), 0.3), torch.linspace(0.8, 0.2, 225)])
    torch.testing.assert_close(area_under_curve(curves), torch.tensor([0.5, 0.3, 0.5]))


@pytest.mark.parametrize("spec", [None, sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (9, 7))])
@pytest.mark.parametrize("fill", ["blur", "mean", 0.25])
def test_equals_the_literal_loop(network: nn.Module, spec: sl.InputSpec | None, fill: str | float) -> None:
    images, maps = torch.rand(2, 3, 9, 7, dtype=torch.float64), torch.rand(2, 9, 7)
    maps[0] = maps[0].round(decimals=1)  # with ties
    curves = perturbation_curves(network, images, maps, steps=10, fill=fill, input_spec=spec)

    network.eval()

    def classify(x: Tensor) -> Tensor:
        return network(x if spec is None else spec.normalize(x))

    for i in range(2):
        target = int(classify(images)[i].argmax())
        nothing = filled(images, fill)[i]
        insertion = literal_curve(classify, nothing, images[i], maps[i], target, 10)
        deletion = literal_curve(classify, images[i], nothing, maps[i], target, 10)
        torch.testing.assert_close(curves["insertion"][i], torch.tensor(insertion, dtype=torch.float64))
        torch.testing.assert_close(curves["deletion"][i], torch.tensor(deletion, dtype=torch.float64))


@pytest.mark.parametrize("internal_batch_size", [1, 3, 7, 64, 1000])
def test_neither_chunks_nor_the_batch_change_the_curves(network: nn.Module, internal_batch_size: int) -> None:
    images, maps = torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.rand(3, 8, 8)
    whole = perturbation_curves(network, images, maps, steps=12)
    chunked = perturbation_curves(network, images, maps, steps=12, internal_batch_size=internal_batch_size)
    single = [perturbation_curves(network, images[i : i + 1], maps[i : i + 1], steps=12) for i in range(3)]
    for kind, curves in whole.items():
        torch.testing.assert_close(chunked[kind], curves)
        torch.testing.assert_close(torch.cat([one[kind] for one in single]), curves)


def test_channels_last_images_reach_the_model_as_such(network: nn.Module) -> None:
    formats = []
    network.register_forward_pre_hook(
        lambda m, x: formats.append(x[0].is_contiguous(memory_format=torch.channels_last))
    )
    images, maps = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 8, 8)
    expected = perturbation_curves(network, images, maps, steps=8)
    formats.clear()
    curves = perturbation_curves(network, images.to(memory_format=torch.channels_last), maps, steps=8)
    assert all(formats)
    torch.testing.assert_close(curves, expected)


def test_both_curves_cost_two_evaluations_a_step(region: Tensor) -> None:
    model = RegionClassifier(region)
    perturbation_curves(model, torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8))
    assert model.images_seen == 2 * 448


def test_one_curve_does_not_pay_for_the_other(region: Tensor) -> None:
    model = RegionClassifier(region)
    Insertion(model, steps=20).update(torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8))
    assert model.images_seen == 21


def test_no_call_is_larger_than_the_chunk(network: nn.Module) -> None:
    sizes = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    perturbation_curves(
        network, torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.rand(3, 8, 8), steps=20, internal_batch_size=10
    )
    assert max(sizes) <= 10


def test_a_full_memory_halves_the_chunk(region: Tensor) -> None:
    class Small(RegionClassifier):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 5:
                raise torch.OutOfMemoryError("no room")
            return super().forward(images)

    images, maps = torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8)
    expected = perturbation_curves(RegionClassifier(region), images, maps)
    torch.testing.assert_close(perturbation_curves(Small(region), images, maps), expected)
    with pytest.raises(torch.OutOfMemoryError):
        perturbation_curves(Small(region), images, maps, internal_batch_size=8)  # asked for, so not shrunk


def test_targets_default_to_the_clean_top_class(region: Tensor) -> None:
    model = RegionClassifier(region, slope=4, offset=-2)
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])  # classes 1 and 0
    maps = torch.rand(2, 8, 8)
    chosen = perturbation_curves(model, images, maps, fill="mean", steps=4)
    given = perturbation_curves(model, images, maps, torch.tensor([1, 0]), fill="mean", steps=4)
    torch.testing.assert_close(chosen, given)
    torch.testing.assert_close(chosen["insertion"], torch.full((2, 5), torch.sigmoid(torch.tensor(2.0)).item()))


def test_max_score_follows_whichever_class_leads(region: Tensor) -> None:
    model = RegionClassifier(region, slope=4, offset=-2)
    maps = region.float()[None]
    curve = perturbation_curves(model, torch.ones(1, 3, 8, 8), maps, steps=64, fill=0.0, score="max")["deletion"][0]
    p = torch.sigmoid(4 * (1 - torch.arange(65).clamp(max=16) / 16) - 2)
    torch.testing.assert_close(curve, torch.maximum(p, 1 - p))


def test_constant_maps_go_in_row_order_and_constant_images_stay(region: Tensor) -> None:
    model = RegionClassifier(region)
    rows = torch.arange(64, 0, -1.0).view(1, 8, 8)
    images = torch.rand(1, 3, 8, 8)
    constant = perturbation_curves(model, images, torch.zeros(1, 8, 8), fill=0.0)
    torch.testing.assert_close(constant, perturbation_curves(model, images, rows, fill=0.0))
    grey = perturbation_curves(model, torch.full((1, 3, 8, 8), 0.5), rows, 0)
    torch.testing.assert_close(grey["insertion"], torch.full((1, 225), torch.sigmoid(torch.tensor(1.0)).item()))


def test_metrics_average_areas_and_curves(network: nn.Module) -> None:
    images, maps = torch.rand(5, 3, 8, 8, dtype=torch.float64), torch.rand(5, 8, 8)
    curves = perturbation_curves(network, images, maps, steps=16)
    for metric, kind in [(Insertion(network, steps=16), "insertion"), (Deletion(network, steps=16), "deletion")]:
        metric.update(images[:2], maps[:2])
        metric.update(images[2:], maps[2:])
        areas = area_under_curve(curves[kind]).float()
        torch.testing.assert_close(metric.compute(), areas.mean())
        torch.testing.assert_close(metric.per_image(), areas)
        torch.testing.assert_close(metric.curve, curves[kind].float().mean(0))
        assert (metric.n, metric.skipped) == (5, 0)


def test_the_model_is_unchanged(network: nn.Module) -> None:
    network[1].eval()
    flags = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    metric = Insertion(network, steps=8)
    metric.update(torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 8, 8))
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not metric.state_dict()
    assert not list(metric.parameters())


def test_blur_is_rises_at_224_and_scales() -> None:
    impulse = torch.zeros(1, 1, 224, 224)
    impulse[0, 0, 100, 100] = 1
    weights = [math.exp(-(x**2) / 50) for x in range(-5, 6)]
    profile = torch.tensor(weights) / sum(weights)
    blurred = filled(impulse, "blur")
    torch.testing.assert_close(blurred[0, 0, 95:106, 95:106], profile[:, None] * profile)
    assert blurred[0, 0, 94].abs().max() == 0
    assert (filled(impulse[..., 84:116, 84:116], "blur") > 0).sum() == 9  # 3 x 3 at 32 pixels
    torch.testing.assert_close(filled(torch.full((1, 3, 5, 4), 0.7), "blur"), torch.full((1, 3, 5, 4), 0.7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.full((2, 8, 8), torch.nan)}, r"NaN or infinity in maps \(images \[0, 1\]"),
        ({"maps": torch.rand(2, 4, 4)}, r"expected \(2, 8, 8\)"),
        ({"maps": torch.ones(2, 8, 8, dtype=torch.int64)}, "expected a float type"),
        ({"images": torch.full((2, 3, 8, 8), torch.nan)}, "NaN or infinity in images"),
        ({"targets": torch.tensor([0, 2])}, r"classes 0 \.\. 1"),
        ({"targets": torch.tensor([0])}, r"expected \(2,\)"),
        ({"steps": 1}, "steps is 1"),
        ({"score": "best"}, "'predicted' or 'max'"),
        ({"fill": "zeros"}, "'blur', 'mean' or a number"),
        ({"curves": ("insertoin",)}, "'insertion', 'deletion' or both"),
        ({"internal_batch_size": 0}, "internal_batch_size is 0"),
        (
            {"input_spec": sl.InputSpec((0.5,) * 3, (0.5,) * 3, (8, 8)), "images": torch.full((2, 3, 8, 8), 2.0)},
            r"\[0, 1\]",
        ),
    ],
)
def test_perturbation_invalid_arguments_raise(region: Tensor, change: dict, message: str) -> None:
    arguments = {"images": torch.rand(2, 3, 8, 8), "maps": torch.rand(2, 8, 8), **change}
    with pytest.raises(sl.SightlineError, match=message):
        perturbation_curves(RegionClassifier(region), **arguments)


def test_nan_scores_are_rejected_not_averaged(region: Tensor) -> None:
    class Breaks(RegionClassifier):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.mean(1)[:, self.region].mean(1)
            return super().forward(images).where((mean == mean.round())[:, None], torch.nan)

    whole, columns = region.float(), (torch.arange(8) < 2).float().expand(8, 8)
    maps = torch.stack([whole, columns])  # a step empties the region of the first image, a quarter of the second's
    with pytest.raises(sl.SightlineError, match=r"NaN or infinity in the model\'s probabilities \(images \[1\]"):
        perturbation_curves(Breaks(region), torch.ones(2, 3, 8, 8), maps, 0, fill=0.0, steps=4)
