"""Methods that hide parts of the image, in closed form on linear models and against Captum called directly."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline as sl
from sightline._core.seeding import derive_seed, generator

captum_attr = pytest.importorskip("captum.attr")


def linear(size: tuple[int, int], classes: int = 2, bias: bool = True) -> tuple[nn.Module, Tensor]:
    """A linear model of one-channel images, and its weights (classes, H, W)."""
    torch.manual_seed(0)
    head = nn.Linear(size[0] * size[1], classes, bias=bias).double()
    return nn.Sequential(nn.Flatten(), head), head.weight.detach().view(classes, *size)


def raw(name: str, model: nn.Module, x: Tensor, targets: object, **options: object) -> Tensor:
    return sl.create_explainer(name, raw=True, **options)(model, x, targets=targets)


def test_occlusion_of_a_linear_model_is_the_mean_of_what_the_windows_take() -> None:
    model, weights = linear((5, 6))
    x, baseline = torch.randn(2, 1, 5, 6).double(), 0.3
    taken = weights[:, None] * (x - baseline)  # image 0 is asked about class 0, image 1 about class 1
    falls, times = torch.zeros(2, 1, 5, 6).double(), torch.zeros(5, 6)
    for i in range(0, 4, 2):
        for j in range(0, 5, 2):
            falls[..., i : i + 3, j : j + 3] += taken[..., i : i + 3, j : j + 3].sum((2, 3), keepdim=True)
            times[i : i + 3, j : j + 3] += 1
    ours = raw("occlusion", model, x, torch.tensor([0, 1]), window=3, stride=2, baseline=baseline)
    covered = times > 0
    torch.testing.assert_close(ours[..., covered], (falls / times)[..., covered], rtol=1e-5, atol=1e-6)


def test_sizes_are_fractions_of_each_side_or_pixels() -> None:
    model, _ = linear((16, 32))
    x = torch.randn(1, 1, 16, 32).double()
    relative = raw("occlusion", model, x, 0, window=0.25, stride=0.25)
    for i in range(4):
        for j in range(4):  # windows of 4 x 8
            assert relative[0, 0, 4 * i : 4 * i + 4, 8 * j : 8 * j + 8].unique().numel() == 1
    torch.testing.assert_close(
        raw("kernel_shap", model, x, 0, patch=0.5, samples=30),
        raw(
            "kernel_shap", model, x, 0, features=torch.arange(16)[:, None] // 8 * 9 + torch.arange(32) // 16, samples=30
        ),
    )


def test_kernel_shap_of_a_linear_model_is_what_each_patch_adds() -> None:
    model, weights = linear((6, 6))
    x = torch.randn(2, 1, 6, 6).double()
    shares = F.avg_pool2d(weights[:, None] * (x - 0.5), 2) * 4  # the Shapley values of an additive game
    expected = shares.repeat_interleave(2, 2).repeat_interleave(2, 3)
    ours = raw("kernel_shap", model, x, torch.tensor([0, 1]), patch=2, samples=100, baseline=0.5)
    torch.testing.assert_close(ours, expected.float().to(ours), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_surrogates_are_captums(name: str) -> None:
    from captum._utils.models.linear_model import SkLearnRidge

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double().eval()
    x = torch.randn(1, 3, 8, 8).double()
    model(x)
    regions = (torch.arange(8)[:, None] // 2 * 4 + torch.arange(8) // 2)[None, None]

    def kernel(original: Tensor, perturbed: Tensor, shown: Tensor, **_: object) -> float:
        return math.exp(-((1 - F.cosine_similarity(shown.float(), torch.ones(1, 16)).item()) ** 2) / 0.125)

    captum = (
        captum_attr.Lime(model, SkLearnRidge(alpha=1.0), similarity_func=kernel)
        if name == "lime"
        else captum_attr.KernelShap(model)
    )
    torch.manual_seed(derive_seed(5, "surrogate"))
    expected = captum.attribute(x, target=1, feature_mask=regions, n_samples=60)
    ours = raw(name, model, x, 1, samples=60, patch=2, seed=5)
    torch.testing.assert_close(ours, expected.double(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(raw(name, model, x, 1, samples=60, patch=2, seed=6), ours)


def literal_masks(count: int, cells: int, shown: float, seed: int, size: tuple[int, int]) -> list[Tensor]:
    """Masks one by one: bits, scaled up by more than the image, cropped."""
    draw = generator(seed, "rise")
    cell = [math.ceil(side / cells) for side in size]
    bits = torch.rand(count, cells, cells, generator=draw) < shown
    places = torch.rand(count, 2, generator=draw)
    masks = []
    for grid, place in zip(bits, places):
        large = F.interpolate(grid[None, None].float(), ((cells + 1) * cell[0], (cells + 1) * cell[1]), mode="bilinear")
        top, left = int(place[0] * cell[0]), int(place[1] * cell[1])
        masks.append(large[0, 0, top : top + size[0], left : left + size[1]].double())
    return masks


def test_rise_is_its_formula_mask_by_mask() -> None:
    model, weights = linear((9, 10))
    x = torch.rand(2, 1, 9, 10).double()
    expected = torch.zeros(2, 9, 10).double()
    for mask in literal_masks(20, 4, 0.3, 7, (9, 10)):
        scores = (weights * (x[:, 0] * mask)).sum((1, 2)) + model[1].bias.detach()
        expected += scores[:, None, None] * mask / (20 * 0.3)
    ours = raw("rise", model, x, torch.tensor([0, 1]), masks=20, cells=4, shown=0.3, seed=7)
    torch.testing.assert_close(ours, expected)


def test_rise_tends_to_its_expectation() -> None:
    # One bit for the whole image: E[Y(x M) M] / p = Y(x), as M is 0 or 1.
    model, weights = linear((3, 4), bias=False)
    x = torch.rand(1, 1, 3, 4).double()
    ours = raw("rise", model, x, 0, masks=20000, cells=1, shown=0.25)
    torch.testing.assert_close(ours, (weights[:1] * x[0]).sum().expand_as(ours), rtol=0.05, atol=0)


def test_rise_points_at_the_pixels_that_matter() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 2, bias=False)).double()
    weights = torch.zeros(2, 24, 24).double()
    weights[0, 3:6, 16:20] = 1
    weights[1, 18:21, 4:8] = 1
    with torch.no_grad():
        model[1].weight.copy_(weights.flatten(1))
    maps = sl.explain(model, torch.ones(2, 1, 24, 24).double(), sl.create_explainer("rise"), torch.tensor([0, 1]))
    for map_, region in zip(maps, weights.bool()):
        assert map_[region].mean() > 0.85
        assert map_.mean() < 0.4


def test_masks_are_in_the_unit_interval_and_show_the_asked_share() -> None:
    masks = sl.create_explainer("rise", masks=2000, shown=0.3)._masks(torch.rand(1, 3, 30, 41))(0, 2000)
    assert masks.shape == (2000, 30, 41)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    assert abs(masks.mean() - 0.3) < 0.01
    assert (masks.mean(0) - 0.3).abs().max() < 0.05
