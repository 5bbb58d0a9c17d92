"""Maps without contrast, and layers with too few places for a map."""

import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.explainers import normalize_maps, resize_maps
from sightline.explainers.places import finer_stages, refuse_few_places
from sightline.metrics import map_boxes, pearson, spearman
from sightline.network.layers import resolve_layers


class Shrinking(nn.Module):
    """Three stages that halve images, and a head; 8 x 8 pixels leave one place in the last stage."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        channels = (3, width, width, width)
        self.stages = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.Softplus()) for a, b in pairwise(channels))
        )
        self.head = nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stages(images).mean((2, 3)))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = Shrinking()

    def forward(self, images: Tensor) -> Tensor:
        return self.inside(images)


@pytest.mark.parametrize("value", [3e-8, 0.3, 7.7e5, -0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_constant_map_has_no_contrast_however_it_was_resized(value: float, dtype: torch.dtype) -> None:
    for grid in [(1, 1), (3, 5), (7, 7)]:
        maps = resize_maps(torch.full((2, *grid), value, dtype=dtype), (33, 47))
        assert (normalize_maps(maps) == 0).all()
    noise = 1 + 8 * torch.finfo(torch.float32).eps * torch.rand(2, 9, 9)
    assert (normalize_maps((value * noise).float()) == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_contrast_is_relative_to_magnitude(scale: float) -> None:
    ramp = torch.linspace(0, 1, 16).view(1, 4, 4)
    torch.testing.assert_close(normalize_maps(scale * ramp), ramp)
    torch.testing.assert_close(normalize_maps(scale * (1 + 1e-3 * ramp)), ramp, atol=1e-3, rtol=0)
    assert normalize_maps(torch.full((1, 2, 2), torch.nan)).isnan().all()


def test_a_map_of_rounding_noise_is_like_no_other_and_points_nothing_out() -> None:
    ramp = torch.linspace(0, 1, 36).view(1, 6, 6)
    noisy = 0.7 + 1e-6 * ramp
    assert (pearson(ramp, noisy), spearman(noisy, ramp)) == (0, 0)
    assert (map_boxes(noisy) == 0).all()


LAYERED = ["gradcam", "gradcam++", "hirescam", "eigencam", "randomcam", "scorecam", "ablationcam", "smoothgradcam++",
           "guided_gradcam"]  # fmt: skip


@pytest.mark.parametrize("slope", [0.0, 1e-8])
@pytest.mark.parametrize(
    "name", ["rise", "kernel_shap", "lime", "occlusion", "partition_shap", "weighted_shap", "scorecam", "ablationcam"]
)
def test_scores_that_vary_by_rounding_alone_give_no_map(name: str, slope: float) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with torch.no_grad():
        model[0].weight.mul_(slope)
        model[0].bias.fill_(7.3)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (sl.explain(model.eval(), images, name, targets=1) == 0).all()


class SharedActivation(nn.Module):
    """One ReLU after every layer, as many models of users have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.Conv2d(4, 4, 3, 2, 1),
            nn.Conv2d(4, 4, 3, 2, 1),
        )
        self.act, self.head = nn.ReLU(), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            images = self.act(layer(images))
        return self.head(images.mean((2, 3)))


def test_finer_layers_run_once() -> None:
    model = SharedActivation().eval()
    images = torch.rand(1, 3, 32, 32)
    for layer, finer in (("third", ["first", "second"]), ("second", ["first"])):
        assert finer_stages(model, resolve_layers(model, layer)[0], images, 2) == finer
        assert sl.explain(model, images, "refinecam", layer=layer).shape == (1, 32, 32)


@pytest.mark.parametrize("name", LAYERED)
def test_explainers_warn_of_a_layer_with_one_place_and_their_maps_are_zero(name: str) -> None:
    model = Shrinking().eval()
    if name == "guided_gradcam":
        for stage in model.stages:
            stage[1] = nn.ReLU()
    with pytest.warns(UserWarning, match=r"'stages.2' has 1 x 1 places .* earlier layer, such as 'stages.1' \(2 x 2\)"):
        maps = sl.explain(model, torch.rand(2, 3, 8, 8), name, layer="stages.2")
    if name != "guided_gradcam":  # which multiplies by a gradient with respect to the pixels
        assert (maps == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sl.explain(model, torch.rand(2, 3, 16, 16), name, layer="stages.2")


@pytest.mark.parametrize(
    ("model", "layer", "side", "advice"),
    [
        (Shrinking(), "stages.2.0", (8, 8), r"8 x 8 pixels.*such as 'stages.1' \(2 x 2\), or larger images"),
        (Shrinking(), "stages.2", (8, 16), r"1 x 2 places.*such as 'stages.1' \(2 x 4\), or larger images"),
        (Wrapped(), "inside.stages.2", (8, 8), r"such as 'inside.stages.1' \(2 x 2\)"),
        (Shrinking(), "stages.0", (2, 2), "too few to show where a score comes from; use larger images"),
    ],
)
def test_the_message_names_an_earlier_layer(model: nn.Module, layer: str, side: tuple[int, int], advice: str) -> None:
    with pytest.raises(sl.SightlineError, match=advice):
        refuse_few_places(sl.Tap(model, layer), torch.rand(2, 3, *side))


@pytest.mark.parametrize(
    "guide",
    [
        sl.Energy(), sl.guides.L1(), sl.SegmentOverlap(), sl.guides.GAIN(), sl.guides.RegionActivation(region="masks"),
        sl.guides.ExplanationConsistency(), sl.guides.ExplanationConsistency("scorecam"), sl.guides.ICCNN(groups=2),
    ],
)  # fmt: skip
def test_guides_refuse_a_layer_with_one_place(guide: sl.guides.Guide) -> None:
    model = Shrinking()
    objective = sl.Objective(model, guide, layer="stages.2").train()
    with pytest.raises(sl.SightlineError, match=r"'stages.2' has 1 x 1 places"):
        objective(batch_of(4, 8, dtype=torch.float32))
    assert all(module.training for module in objective.modules())


def test_a_guide_at_the_named_layer_changes_the_gradient() -> None:
    model, batch = Shrinking(), batch_of(4, 8, dtype=torch.float32)
    loss = sl.Objective(model, sl.Energy(), layer="stages.1")(batch)["loss"]
    (guided,) = torch.autograd.grad(loss, [model.stages[0][0].weight])
    (plain,) = torch.autograd.grad(F.cross_entropy(model(batch.images), batch.labels), [model.stages[0][0].weight])
    assert (guided - plain).abs().max() > 0.01 * plain.abs().max()


def test_check_model_warns() -> None:
    with pytest.warns(UserWarning, match=r"'stages.2' has 1 x 1 places.*'stages.1'"):
        sl.check_model(Shrinking(), "stages.2", torch.rand(2, 3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sl.check_model(TinyCNN(), images=torch.rand(2, 3, 8, 8))


def test_an_earlier_layer_is_looked_for_once_and_the_warning_stays() -> None:
    model = torchvision.models.resnet18().eval()
    passes = []
    model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    for expected in (2, 1, 1):
        passes.clear()
        with pytest.warns(UserWarning, match="layer 'layer4' has 1 x 1 places"):
            sl.explain(model, torch.rand(2, 3, 32, 32))
        assert len(passes) == expected
