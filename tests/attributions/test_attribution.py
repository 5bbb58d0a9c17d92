"""Attributions against gradients by hand, against Captum called directly, and on models that Captum alone gets wrong."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline._core.seeding import derive_seed
from sightline.attributions.fx_modules import WindowMax
from sightline.errors import NotDefinedError, SightlineError
from sightline.explainers import normalize_maps
from sightline.network.targets import Contrast, joint

captum_attr = pytest.importorskip("captum.attr")

GRADIENT = ["saliency", "smoothgrad", "input_x_gradient", "integrated_gradients"]
RULES = ["guided_backprop", "guided_gradcam", "deeplift", "lrp"]
PERTURBATION = ["occlusion", "lime", "kernel_shap", "rise"]
FEW: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 5},
    "integrated_gradients": {"steps": 7},
    "occlusion": {"window": 3, "stride": 2},
    "lime": {"samples": 30, "patch": 0.25},
    "kernel_shap": {"samples": 40, "patch": 0.25},
    "rise": {"masks": 30, "cells": 3},
}


class ReluNet(nn.Module):
    """Modules alone, each used once: what Captum can take as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class Tangled(nn.Module):
    """A network as people write it: one in-place ReLU for all, a functional one, a residual, pools that overlap."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(4, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        y = self.conv2(F.relu(self.conv3(x)))
        y += x
        y = F.adaptive_avg_pool2d(F.max_pool2d(self.relu(y), 3, 2), 1)
        return self.head(y.view(y.size(0), -1))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images(size: int = 3) -> Tensor:
    return torch.randn(size, 3, 12, 10, dtype=torch.float64)


def raw(name: str, model: nn.Module, x: Tensor, targets: Any = None, **options: Any) -> Tensor:
    return sl.create_explainer(name, raw=True, **{**FEW.get(name, {}), **options})(model, x, targets=targets)


def gradient(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, classes[:, None]).sum(), x)[0]


# ---- by hand ----


def test_saliency_and_input_x_gradient_are_the_gradient_by_hand() -> None:
    model, x, classes = TinyCNN().double(), images(), torch.tensor([0, 2, 1])
    expected = gradient(model, x, classes)
    torch.testing.assert_close(raw("saliency", model, x, classes), expected)
    torch.testing.assert_close(raw("input_x_gradient", model, x, classes), x * expected)
    maps = sl.explain(model, x, "saliency", targets=classes)
    torch.testing.assert_close(maps, normalize_maps(expected.abs().amax(1)))


def test_signed_attributions_are_summed_over_channels_before_the_sign_is_taken() -> None:
    model, x, classes = TinyCNN().double(), images(), torch.tensor([0, 2, 1])
    total = (x * gradient(model, x, classes)).sum(1)
    for sign, expected in (("positive", total.relu()), ("absolute", total.abs())):
        explainer = sl.create_explainer("input_x_gradient", sign=sign)
        torch.testing.assert_close(explainer(model, x, targets=classes), normalize_maps(expected))


def test_integrated_gradients_add_up_to_the_difference_of_scores() -> None:
    model, x, classes = TinyCNN().double(), images(), torch.tensor([0, 2, 1])
    for baseline in (0.0, torch.tensor([0.5, -1.0, 2.0])[:, None, None]):
        start = torch.zeros_like(x) + baseline
        difference = (model(x) - model(start)).gather(1, classes[:, None])[:, 0]
        shares = raw("integrated_gradients", model, x, classes, steps=50, baseline=baseline)
        torch.testing.assert_close(shares.sum((1, 2, 3)), difference, rtol=1e-5, atol=1e-6)


def test_smoothgrad_without_noise_is_the_gradient_and_with_noise_the_mean_of_signed_gradients() -> None:
    model, x, classes = TinyCNN().double(), images(), torch.tensor([0, 2, 1])
    torch.testing.assert_close(raw("smoothgrad", model, x, classes, noise=0), gradient(model, x, classes))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(360, 3)).double()  # its gradient is the same everywhere
    torch.testing.assert_close(raw("smoothgrad", linear, x, classes), linear[1].weight[classes].view_as(x).detach())


def test_guided_backprop_passes_positive_gradients_only() -> None:
    # y = 2 relu(a) - relu(b) + relu(a + b): of the inner gradients only the positive ones pass.
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        model[3].weight.copy_(torch.tensor([[2.0, -1.0, 1.0]]))
    x = torch.tensor([3.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    torch.testing.assert_close(raw("guided_backprop", model, x, 1).flatten(), torch.tensor([3.0, 1.0]).double())
    assert gradient(model, x, torch.tensor([0])).flatten().tolist() == [3.0, 0.0]


# ---- Captum called directly ----


@pytest.mark.parametrize("name", [n for n in GRADIENT + RULES if n != "smoothgrad"])
def test_values_are_captums(name: str) -> None:
    model, x, classes = ReluNet().double(), images(), torch.tensor([0, 2, 1])
    leaf = x.clone().requires_grad_()
    twin = copy.deepcopy(model)
    expected = {
        "saliency": lambda: captum_attr.Saliency(twin).attribute(leaf, classes, abs=False),
        "input_x_gradient": lambda: captum_attr.InputXGradient(twin).attribute(leaf, classes),
        "integrated_gradients": lambda: captum_attr.IntegratedGradients(twin).attribute(leaf, 0, classes, n_steps=7),
        "guided_backprop": lambda: captum_attr.GuidedBackprop(twin).attribute(leaf, classes),
        "guided_gradcam": lambda: captum_attr.GuidedGradCam(twin, twin.features[2]).attribute(
            leaf, classes, interpolate_mode="bilinear"
        ),
        "deeplift": lambda: captum_attr.DeepLift(twin).attribute(leaf, 0, classes),
        "lrp": lambda: captum_attr.LRP(twin).attribute(leaf, classes),
    }[name]()
    explainer = sl.create_explainer(name, raw=True, **FEW.get(name, {}))
    layer = "features.2" if name == "guided_gradcam" else None
    torch.testing.assert_close(
        explainer(model, x, targets=classes, layer=layer), expected.detach(), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    "targets",
    [Contrast(), Contrast(0, 2), joint(0, 1), lambda output: -output[:, 1], lambda output: output[:, 0] ** 2 / 2],
)
def test_lrp_of_any_score_is_input_times_gradient_where_all_is_relu(targets: Any) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3, bias=False)
    ).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    lrp, product = (
        sl.create_explainer(name, raw=True)(model, x, targets=targets) for name in ("lrp", "input_x_gradient")
    )
    torch.testing.assert_close(lrp, product, rtol=1e-3, atol=1e-6)  # epsilon is 1e-9


def test_smoothgrad_is_captums_noise_tunnel() -> None:
    model, x = ReluNet().double(), images(1)
    torch.manual_seed(derive_seed(3, "smoothgrad"))
    tunnel = captum_attr.NoiseTunnel(captum_attr.Saliency(model))
    noise = 0.2 * float(x.max() - x.min())
    expected = tunnel.attribute(x, nt_samples=5, stdevs=noise, abs=False, target=1)
    torch.testing.assert_close(raw("smoothgrad", model, x, 1, noise=0.2, seed=3), expected, rtol=1e-6, atol=1e-9)


# ---- models that Captum cannot take as they are ----


@pytest.mark.parametrize("name", ["deeplift", "lrp"])
@pytest.mark.parametrize("network", ["tangled", "resnet18", "densenet121", "squeezenet1_1"])
def test_shares_add_up_on_models_with_reused_functional_and_in_place_parts(name: str, network: str) -> None:
    bias = name == "deeplift"  # a bias takes relevance from LRP; a difference of scores has none
    model = Tangled(bias) if network == "tangled" else torchvision.models.get_model(network)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.normal_(module.bias, std=0.05) if bias else nn.init.zeros_(module.bias)
    x, classes = torch.randn(2, 3, 40, 40, dtype=torch.float64), torch.tensor([0, 2])
    with torch.no_grad():
        difference = (model(x) - bias * model(0 * x)).gather(1, classes[:, None])[:, 0]
    assert (difference.abs() > 1e-4).all()
    torch.testing.assert_close(raw(name, model, x, classes).sum((1, 2, 3)), difference, rtol=1e-4, atol=1e-7)


def test_guided_backprop_sees_functional_and_reused_relus() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ReluNet()

        def forward(self, x: Tensor) -> Tensor:
            x = self.net.features[0](x).relu()
            return self.net.head(self.net.pool(F.relu(self.net.features[2](x), inplace=True)).flatten(1))

    model, x = Plain().double(), images()
    expected = raw("guided_backprop", model.net, x, 1)
    torch.testing.assert_close(raw("guided_backprop", model, x, 1), expected)
    assert not torch.allclose(expected, gradient(model, x, torch.tensor([1, 1, 1])))


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((2, 3), (3, 1), (1, 0), dilation=(1, 2)),
        nn.MaxPool2d(2, 3),
    ],
)
def test_windows_that_share_nothing_have_the_same_maximum(pool: nn.MaxPool2d) -> None:
    x = -torch.rand(2, 3, 11, 12)  # negative, so that padding with zeros would show
    assert torch.equal(WindowMax(pool)(x), pool(x))


class Act(nn.Module):
    def __init__(self, act: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.block = nn.Module()
        self.block.act = act if isinstance(act, nn.Module) else nn.Identity()
        self.function = (lambda x: x) if isinstance(act, nn.Module) else act
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.function(self.block.act(self.conv(x))), 1).flatten(1))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (nn.GELU(), r"module 'block.act' \(GELU\)"),
        (nn.SiLU(), r"module 'block.act' \(SiLU\)"),
        (nn.ReLU6(), r"module 'block.act' \(ReLU6\)"),
        (F.gelu, r"gelu\(\) in the model's forward"),
        (torch.exp, r"exp\(\) in the model's forward"),
        (lambda x: x * x.sigmoid(), r"(sigmoid|mul)\(\) in the model's forward"),
        (lambda x: x if x.sum() > 0 else -x, "torch.fx cannot trace Act"),
    ],
)
def test_modules_without_a_rule_are_named_before_anything_runs(name: str, act: Any, message: str) -> None:
    model = Act(act).double()
    with pytest.raises(NotDefinedError, match=message):
        sl.explain(model, images(), name, layer="conv")


def test_deeplift_takes_the_nonlinearities_it_has_rules_for_and_adds_up() -> None:
    for act in (nn.ELU(), nn.Sigmoid(), torch.tanh, lambda x: F.softplus(x).relu()):
        model, x = Act(act).double(), images()
        difference = (model(x) - model(0 * x))[:, 1].detach()
        torch.testing.assert_close(raw("deeplift", model, x, 1).sum((1, 2, 3)), difference)


def test_a_model_that_relies_on_work_in_place_is_rejected() -> None:
    class Overwrites(Act):
        def forward(self, x: Tensor) -> Tensor:
            before = self.conv(x)
            after = self.block.act(before)
            return self.head(F.adaptive_avg_pool2d(before + after, 1).flatten(1))

    with pytest.raises(NotDefinedError, match="Overwrites without in-place operations gives other scores"):
        sl.explain(Overwrites(nn.ReLU(inplace=True)).double(), images(), "guided_backprop")


def test_guided_gradcam_needs_a_layer_with_places() -> None:
    with pytest.raises(SightlineError, match="head"):
        sl.explain(ReluNet().double(), images(), "guided_gradcam", layer="head")


# ---- as users call them ----

EVERY = GRADIENT + RULES + PERTURBATION


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("question", ["different classes", "contrast", "function"])
def test_a_batch_equals_its_images_one_by_one_and_in_chunks(name: str, question: str) -> None:
    model, x = Tangled().double(), images(4)
    classes = torch.tensor([0, 2, 1, 2])
    targets, single = {
        "different classes": (classes, lambda i: int(classes[i])),
        "contrast": (Contrast(classes, (classes + 1) % 3), lambda i: Contrast(classes[i], (classes[i] + 1) % 3)),
        "function": (lambda o: o[:, 0] + o[:, 1] ** 2, lambda i: lambda o: o[:, 0] + o[:, 1] ** 2),
    }[question]
    options = FEW.get(name, {})
    whole = sl.create_explainer(name, raw=True, **options)(model, x, targets=targets, layer=_layer(name))
    assert torch.isfinite(whole).all()
    assert (whole.flatten(1).std(1) > 0).sum() >= 2  # Grad-CAM's ReLU may leave nothing of a map
    for i in range(4):
        alone = sl.create_explainer(name, raw=True, **options)(model, x[i : i + 1], single(i), layer=_layer(name))
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-5, atol=1e-8)
    if name == "smoothgrad":
        return  # the noise of an internal batch is drawn at once, so another size gives other noise
    chunked = sl.create_explainer(name, raw=True, internal_batch_size=3, **options)(
        model, x, targets=targets, layer=_layer(name)
    )
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-8)


def _layer(name: str) -> str | None:
    return "conv3" if name == "guided_gradcam" else None


@pytest.mark.parametrize("name", EVERY)
def test_no_call_to_the_model_is_larger_than_the_chunk(name: str) -> None:
    model, x, sizes = ReluNet().double(), images(5), []
    model.head.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    sl.create_explainer(name, internal_batch_size=2, **FEW.get(name, {}))(
        model, x, layer="features.2" if _layer(name) else None
    )
    assert max(sizes[1:]) <= 2 * (2 if name == "deeplift" else 1)  # DeepLIFT sees each image beside its baseline


@pytest.mark.parametrize("name", EVERY)
def test_the_model_the_images_and_the_generators_are_unchanged(name: str) -> None:
    model, x = Tangled().double().train(), images()
    model.conv1.eval()
    before, pixels, state = copy.deepcopy(model), x.clone(), torch.get_rng_state()
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    maps = explainer(model, x, layer=_layer(name))
    assert maps.shape == (3, 12, 10)
    assert maps.amin() == 0
    assert maps.amax() == 1
    torch.testing.assert_close(pickle.loads(pickle.dumps(explainer))(model, x, layer=_layer(name)), maps)
    with pytest.raises(RuntimeError, match="by a target"):
        explainer(model, x, targets=_Failing(3 if name in RULES else 1), layer=_layer(name))
    assert torch.equal(x, pixels)
    assert torch.equal(torch.get_rng_state(), state)
    for (path, module), (_, twin) in zip(model.named_modules(), before.named_modules(), strict=True):
        assert vars(module).keys() == vars(twin).keys(), path
        assert module.training == twin.training
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            assert not getattr(module, hooks)
    for parameter, twin in zip(model.parameters(), before.parameters()):
        assert torch.equal(parameter, twin)
        assert parameter.requires_grad
        assert parameter.grad is None
    assert model.relu.inplace


class _Failing:
    """A target that fails the n-th time it is asked; methods with rules ask twice before Captum has set its hooks."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, output: Tensor) -> Tensor:
        self.left -= 1
        if self.left <= 0:
            raise RuntimeError("by a target")
        return output[:, 0]


def test_a_users_hooks_stay_and_gradients_may_be_disabled() -> None:
    model, x = ReluNet().double(), images()
    seen: list[int] = []
    model.pool.register_forward_hook(lambda *_: seen.append(1))
    model.pool.register_full_backward_hook(lambda *_: None)
    for name in RULES:
        with torch.inference_mode():
            sl.explain(model, x, name, layer="features.2" if name == "guided_gradcam" else None)
    assert seen
    assert len(model.pool._forward_hooks) == len(model.pool._backward_hooks) == 1


def test_names_do_not_need_captum() -> None:
    code = "import sys, sightline as sl; sl.explainers.list_explainers(); sys.exit('captum' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deeplift", {"sign": "negative"}, "sign is 'negative'; expected 'positive' or 'absolute'"),
        ("saliency", {"sign": "positive"}, "unknown option of 'saliency': 'sign'"),
        ("integrated_gradients", {"steps": 0}, "steps is 0"),
        ("integrated_gradients", {"baseline": torch.zeros(2)}, r"baseline has shape \(2,\)"),
        ("smoothgrad", {"noise": -1.0}, "noise is -1.0"),
        ("saliency", {"internal_batch_size": 0}, "internal_batch_size is 0"),
        ("occlusion", {"window": 1.5}, "window is 1.5; a float is a fraction"),
        ("occlusion", {"window": 2, "stride": 3}, "leaves gaps"),
        ("lime", {"samples": 1}, "samples is 1"),
        ("lime", {"patch": 0}, "patch is 0"),
        ("kernel_shap", {"patch": 1.0}, "the whole image is one patch"),
        ("lime", {"features": torch.zeros(3, 3)}, r"features have shape \(3, 3\)"),
        ("rise", {"masks": 0}, "masks is 0"),
    ],
)
def test_attributions_invalid_options_raise(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.create_explainer(name, **options)(ReluNet().double(), images())
