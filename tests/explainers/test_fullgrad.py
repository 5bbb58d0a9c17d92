"""FullGrad: the parts sum to the logit, the map equals the formula written out, and what cannot be taken apart is named."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, Unlike
from sightline.explainers.fullgrad import FullGradients, full_gradients


class ReLUNet(nn.Module):
    """Convolutions with and without bias, normalisation, a residual, pooling, in-place ReLUs, and two linear layers."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 5), nn.LeakyReLU())
        self.classifier = nn.Linear(5, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after training: none of these is at its default
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.classifier(self.head(self.pool(F.relu(x + self.block(x)))))


class Gated(nn.Module):
    """A product of activations, as in squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.gate = Gate()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gate(self.features(x)).mean((2, 3)))


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(4, 4, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))


def total(parts: FullGradients) -> Tensor:
    """The sum of all parts, an image."""
    return parts.input.flatten(1).sum(1) + sum(part.flatten(1).sum(1) for _, part in parts.biases)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


# ---- the decomposition ----


def test_full_gradients_of_a_small_network_have_the_expected_values() -> None:
    # f = 3 relu(2 x - 1) - 5 relu(-x + 4) + 7 at one pixel, x = 3: both units are on.
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, -1.0])[:, None, None, None])
        model[0].bias.copy_(torch.tensor([-1.0, 4.0]))
        model[3].weight.copy_(torch.tensor([[3.0, -5.0]]))
        model[3].bias.fill_(7)
    parts = full_gradients(model, torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64))
    assert parts.input.item() == 3 * (3 * 2 + -5 * -1)
    assert [name for name, _ in parts.biases] == ["0", "3"]
    assert parts.biases[0][1].flatten().tolist() == [3 * -1, -5 * 4]
    assert parts.biases[1][1].item() == 7


@pytest.mark.parametrize("target", [0, 2])
def test_the_parts_sum_to_the_logit_of_a_relu_network(target: int) -> None:
    model, images = ReLUNet().double().eval(), torch.randn(3, 3, 8, 8).double()
    parts = full_gradients(model, images, target)
    torch.testing.assert_close(total(parts), model(images)[:, target].detach(), rtol=1e-12, atol=1e-12)
    names = ["stem.0", "stem.1", "block.1", "block.3", "head.2", "classifier"]
    assert [name for name, _ in parts.biases] == names
    # None of the biases can be spared.
    for _, part in parts.biases:
        assert part.flatten(1).sum(1).abs().min() > 1e-6


def test_the_bias_of_a_normalisation_is_what_it_answers_to_zeros() -> None:
    model, images = ReLUNet().double().eval(), torch.randn(1, 3, 8, 8).double()
    norm = model.stem[1]
    seen: list[Tensor] = []
    handle = norm.register_forward_hook(lambda _, __, output: seen.append(output) or output.clone())
    logit = model(images)[0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, seen[0])
    bias = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    part = dict(full_gradients(model, images, 1).biases)["stem.1"]
    torch.testing.assert_close(part, (bias[:, None, None] * gradient).detach())


@pytest.mark.parametrize(
    "activation", [nn.Softplus(), nn.GELU(), nn.SiLU(inplace=True), nn.ReLU6(), nn.Hardswish(inplace=True), nn.Tanh()]
)
def test_other_activation_functions_contribute_the_bias_of_their_tangent(activation: nn.Module) -> None:
    model = TinyCNN().double().eval()
    model.features[1], model.features[3] = activation, copy.deepcopy(activation)
    images = 4 * torch.randn(2, 3, 8, 8).double()
    parts = full_gradients(model, images, 1)
    torch.testing.assert_close(total(parts), model(images)[:, 1].detach(), rtol=1e-12, atol=1e-12)
    assert "features.1" in dict(parts.biases)


def test_the_score_may_be_any_that_is_linear_in_the_logits() -> None:
    model, images = ReLUNet().double().eval(), torch.randn(2, 3, 8, 8).double()
    logits = model(images).detach()
    torch.testing.assert_close(
        total(full_gradients(model, images, sl.targets.joint(0, 2))), logits[:, 0] + logits[:, 2]
    )
    contrast = total(full_gradients(model, images, sl.targets.Contrast(1, 2)))
    torch.testing.assert_close(contrast, logits[:, 1] - logits[:, 2])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "timm/tf_efficientnet_lite0"])
def test_fullgrad_is_complete_on_real_architectures(name: str) -> None:
    """Dense connections, ReLU6, and timm's normalisation with the activation function inside."""
    if name.startswith("timm/"):
        model = pytest.importorskip("timm").create_model(name.removeprefix("timm/"))
    else:
        model = torchvision.models.get_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    model, images = model.double().eval(), torch.randn(1, 3, 64, 64).double()
    torch.testing.assert_close(
        total(full_gradients(model, images)), model(images).amax(1).detach(), rtol=1e-9, atol=1e-9
    )


# ---- the map ----


def literal(model: nn.Module, image: Tensor, target: int, jointly: bool) -> np.ndarray:
    """The map of one image: a loop over layers and channels, each resized by itself."""
    size = tuple(image.shape[1:])

    def psi(channels: np.ndarray) -> np.ndarray:
        channels = np.abs(channels)
        result = np.zeros(size)
        for channel in channels:
            low, high = (channels.min(), channels.max()) if jointly else (channel.min(), channel.max())
            if high > low:
                scaled = torch.from_numpy((channel - low) / (high - low))[None, None]
                result += F.interpolate(scaled, size, mode="bilinear", align_corners=False)[0, 0].numpy()
        return result

    parts = full_gradients(model, image[None], target)
    map_ = psi(parts.input[0].numpy())
    for name, part in parts.biases:
        if isinstance(model.get_submodule(name), nn.Conv2d | nn.BatchNorm2d):
            map_ += psi(part[0].numpy())
    return (map_ - map_.min()) / (map_.max() - map_.min())


@pytest.mark.parametrize("rescale", ["channel", "layer"])
def test_the_map_equals_the_formula(rescale: str) -> None:
    model, images = ReLUNet().double().eval(), torch.randn(2, 3, 8, 12).double()
    expected = np.stack([literal(model, image, 1, rescale == "layer") for image in images])
    maps = sl.explain(model, images, sl.create_explainer("fullgrad", rescale=rescale), targets=1)
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rescale", ["channel", "layer"])
def test_a_batch_equals_its_images_one_by_one(rescale: str) -> None:
    explainer = sl.create_explainer("fullgrad", rescale=rescale)
    model, images = ReLUNet().double(), torch.rand(3, 3, 8, 10).double()
    maps = explainer(model, images)
    assert maps.shape == (3, 8, 10)
    torch.testing.assert_close(maps, torch.cat([explainer(model, image[None]) for image in images]))


def test_maps_equal_those_of_the_peer() -> None:
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = torchvision.models.resnet18().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        model.fc.weight.mul_(1e3)  # the peer adds 1e-7 to each channel's maximum, which must not show
    model, images = model.double(), torch.rand(2, 3, 64, 64).double()
    ours = sl.explain(model, images, "fullgrad", targets=5)
    with peers.FullGrad(model=model, target_layers=[]) as cam:
        theirs = cam(input_tensor=images, targets=[ClassifierOutputTarget(5)] * 2)
    torch.testing.assert_close(ours, torch.from_numpy(theirs).double(), atol=1e-4, rtol=0)


def test_an_image_of_one_pixel_has_no_contrast() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    assert torch.equal(sl.explain(model, torch.ones(2, 1, 1, 1), "fullgrad"), torch.zeros(2, 1, 1))


def test_linear_layers_over_the_last_dimension_have_places() -> None:
    class PerPixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x.permute(0, 2, 3, 1)).relu().mean((1, 2)))

    parts = full_gradients(PerPixel(), torch.rand(2, 3, 4, 6))
    assert {name: tuple(part.shape) for name, part in parts.biases} == {"embed": (2, 8, 4, 6), "head": (2, 3)}


# ---- what it is not defined for, and what it leaves behind ----


def test_a_norm_is_named() -> None:
    with pytest.raises(sl.NotDefinedError, match=r"not defined for this model: 'norm' \(LayerNorm\)"):
        sl.explain(Unlike(), torch.rand(1, 3, 8, 8), "fullgrad", layer="norm")


def test_a_linear_module_whose_outputs_cancel_is_not_blamed() -> None:
    class Centre(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean((1, 2, 3), keepdim=True)

    model = nn.Sequential(Centre(), Unlike())
    with pytest.raises(sl.NotDefinedError, match=r"'1\.norm' \(LayerNorm\)"):
        sl.explain(model, torch.rand(1, 3, 8, 8), "fullgrad")


def test_a_gate_is_named() -> None:
    with pytest.raises(sl.NotDefinedError, match=r"'gate' \(Gate\) is neither linear nor an activation function"):
        sl.explain(Gated(), torch.rand(1, 3, 8, 8), "fullgrad")


def test_a_normalisation_by_the_batch_is_named() -> None:
    model = ReLUNet()
    model.stem[1] = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(sl.NotDefinedError, match=r"'stem\.1' \(BatchNorm2d\)"):
        sl.explain(model, torch.rand(2, 3, 8, 8), "fullgrad")


def test_an_activation_function_outside_any_module_is_laid_to_what_holds_it() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.silu(self.conv(x)).mean((2, 3)))

    with pytest.raises(sl.NotDefinedError, match="the Functional itself is neither linear"):
        sl.explain(Functional(), torch.rand(1, 3, 8, 8), "fullgrad")


def test_fullgrad_restores_the_model_also_after_an_error() -> None:
    class Failing(ReLUNet):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise RuntimeError("on purpose")

    for model, error in ((ReLUNet(), None), (Gated(), sl.NotDefinedError), (Failing(), RuntimeError)):
        model.train()
        state = copy.deepcopy(model.state_dict())
        if error is None:
            sl.explain(model, torch.rand(1, 3, 8, 8), "fullgrad")
        else:
            with pytest.raises(error):
                sl.explain(model, torch.rand(1, 3, 8, 8), "fullgrad")
        assert hooks(model) == 0
        assert all(m.training for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values()))


def test_autocast_does_not_make_it_coarse() -> None:
    model, images = ReLUNet(), torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        maps = sl.explain(model, images, "fullgrad")
    torch.testing.assert_close(maps, sl.explain(model, images, "fullgrad"))


def test_fullgrad_copies_and_pickles_give_equal_maps() -> None:
    model, images = ReLUNet(), torch.rand(1, 3, 8, 8)
    explainer: Any = sl.create_explainer("fullgrad", rescale="layer")
    other = pickle.loads(pickle.dumps(copy.deepcopy(explainer)))
    assert torch.equal(other(model, images), explainer(model, images))


def test_fullgrad_invalid_options_raise() -> None:
    with pytest.raises(sl.SightlineError, match="rescale is 'image'; expected 'channel' or 'layer'"):
        sl.create_explainer("fullgrad", rescale="image")
