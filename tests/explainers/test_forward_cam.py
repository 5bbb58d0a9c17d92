"""Ablation-CAM and Score-CAM against loops that run the whole model for one channel at a time, and against the peers."""

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sightline as sl
from networks import TinyCNN, Unlike
from sightline._core import internal_batches
from sightline.explainers import normalize_maps, resize_maps
from sightline.explainers.forward_cam import AblationCAM, ScoreCAM
from sightline.network.layout import Layer, to_spatial
from sightline.network.tap import Tap

BOTH = ["ablationcam", "scorecam"]


class Strided(nn.Module):
    """A layer whose activations are smaller than the image, with ReLUs before and convolutions after it."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), nn.ReLU())
        self.tail = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.features(x)).flatten(1))


class Tokens(nn.Module):
    """A class token and one token a patch; the class token attends to all of them after the layer `norm`."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1)
        query, key, value = self.mix(self.norm(x)).chunk(3, -1)
        x = x + (query @ key.transpose(1, 2)).softmax(-1) @ value
        return self.head(x[:, 0])


class Untraceable(Strided):
    """One that torch.fx cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > -torch.inf else x.mean((2, 3))


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], Layer]] = {
    "channels first": (Strided, Layer("features")),
    "channels last": (Unlike, Layer("norm", "channels_last")),
    "tokens": (Tokens, Layer("norm", "tokens", 1)),
}


def make(layout: str) -> tuple[nn.Module, Layer, Tensor]:
    model, layer = LAYOUTS[layout]
    return model().double().eval(), layer, torch.rand(2, 3, 8, 12).double()


def replaced(model: nn.Module, layer: Layer, image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The model's answer to one image where a layer's output is changed by a hook: a full forward pass."""
    handle = model.get_submodule(layer.name).register_forward_hook(lambda _, __, output: change(output.clone()))
    try:
        with torch.no_grad():
            return model(image[None])[0]
    finally:
        handle.remove()


def activations_of(model: nn.Module, layer: Layer, image: Tensor) -> Tensor:
    """(C, h, w), and the model's answer is not looked at."""
    kept: list[Tensor] = []
    replaced(model, layer, image, lambda output: kept.append(output) or output)
    return to_spatial(layer, kept[0], (image.shape[1], image.shape[2]))[0]


def to_map(weights: list[Tensor], activations: Tensor, image: Tensor) -> Tensor:
    total = torch.zeros_like(activations[0])
    for weight, channel in zip(weights, activations):
        total = total + weight * channel
    return normalize_maps(resize_maps(total.clamp_min(0)[None], (image.shape[1], image.shape[2])))[0]


def literal_ablation(
    model: nn.Module, layer: Layer, image: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], Tensor]:
    """The weights and the map of one image, channel by channel."""
    activations = activations_of(model, layer, image)
    whole = score(replaced(model, layer, image, lambda output: output))
    weights = []
    for k in range(len(activations)):

        def ablate(output: Tensor, k: int = k) -> Tensor:
            if layer.layout == "channels_first":
                output[:, k] = 0
            else:
                output[..., layer.prefix :, k] = 0
            return output

        weights.append((whole - score(replaced(model, layer, image, ablate))) / max(float(whole), 1e-6))
    return weights, to_map(weights, activations, image)


def literal_score(model: nn.Module, layer: Layer, image: Tensor, target: int) -> tuple[list[Tensor], Tensor]:
    """The weights and the map of one image, channel by channel."""
    activations, scores = activations_of(model, layer, image), []
    for channel in activations:
        mask = F.interpolate(channel[None, None], tuple(image.shape[1:]), mode="bilinear", align_corners=False)[0]
        mask = (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else torch.zeros_like(mask)
        with torch.no_grad():
            scores.append(model((image * mask)[None])[0, target].exp())
    weights = [score / sum(scores) for score in scores]
    return weights, to_map(weights, activations, image)


def rows_through(module: nn.Module, run: Callable[[], Any]) -> list[int]:
    """The batch sizes that reach a module during a run."""
    sizes: list[int] = []
    handle = module.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    run()
    handle.remove()
    return sizes


def features_map(model: nn.Module, images: Tensor, method: Any, targets: Any = 1) -> Tensor:
    """The maps of the networks above at their strided layer."""
    return sl.explain(model, images, method, targets=targets, layer="features")


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


# ---- the formulas ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ablationcam_equals_a_loop_over_channels(layout: str) -> None:
    model, layer, images = make(layout)
    assert Tap(model, layer).tail(images).is_cut
    _, weights = AblationCAM().channel_weights(model, images, 1, layer)
    maps = sl.explain(model, images, "ablationcam", targets=1, layer=layer)
    for i, image in enumerate(images):
        expected, map_ = literal_ablation(model, layer, image, lambda output: output[1])
        torch.testing.assert_close(weights[i], torch.stack(expected), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(maps[i], map_, rtol=1e-9, atol=1e-9)


def test_ablationcam_can_ask_the_probabilities() -> None:
    model, layer, images = make("channels first")
    maps = features_map(model, images, AblationCAM(softmax=True))
    for i, image in enumerate(images):
        _, map_ = literal_ablation(model, layer, image, lambda output: output.softmax(0)[1])
        torch.testing.assert_close(maps[i], map_, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(maps, features_map(model, images, "ablationcam"), atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scorecam_equals_a_loop_over_channels(layout: str) -> None:
    model, layer, images = make(layout)
    _, weights = ScoreCAM().channel_weights(model, images, 1, layer)
    maps = sl.explain(model, images, "scorecam", targets=1, layer=layer)
    for i, image in enumerate(images):
        expected, map_ = literal_score(model, layer, image, 1)
        torch.testing.assert_close(weights[i], torch.stack(expected), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(maps[i], map_, rtol=1e-9, atol=1e-9)


def test_ablationcam_of_a_linear_tail_has_the_expected_weights() -> None:
    # Y = 2 mean(A_0) - mean(A_1), with means 3 and 2: Y = 4, and 4 - Y_k = 6, -2.
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([[2.0, -1.0]]))
    image = torch.tensor([[[[1.0, 5.0]], [[4.0, 0.0]]]]).double()
    activations, weights = AblationCAM().channel_weights(model, image, 1, Layer("0"))
    assert torch.equal(activations, image)
    torch.testing.assert_close(weights, torch.tensor([[6 / 4, -2 / 4]]).double())


def test_a_score_below_zero_does_not_turn_the_map_round() -> None:
    model = Strided().double().eval()
    with torch.no_grad():
        model.head.bias.sub_(100)
    images = torch.rand(2, 3, 8, 8).double()
    low = features_map(model, images, "ablationcam")
    with torch.no_grad():
        model.head.bias.add_(200)
    torch.testing.assert_close(low, features_map(model, images, "ablationcam"))
    assert low.amax() == 1


@pytest.mark.parametrize("name", BOTH)
def test_forward_cams_accept_any_score_of_the_output(name: str) -> None:
    model, images = Strided().double(), torch.rand(3, 3, 8, 8).double()
    classes = torch.tensor([0, 2, 1])
    mixed = features_map(model, images, name, classes)
    singles = [features_map(model, images[[i]], name, int(classes[i])) for i in range(3)]
    torch.testing.assert_close(mixed, torch.cat(singles))
    by_function = features_map(model, images, name, lambda output: output[:, 1])
    torch.testing.assert_close(by_function, features_map(model, images, name, 1))
    # The difference of two logits is the logit of a class whose weights are the difference of theirs.
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.weight[0] -= other.head.weight[2]
        other.head.bias[0] -= other.head.bias[2]
    contrast = features_map(model, images, name, sl.targets.Contrast(0, 2))
    torch.testing.assert_close(contrast, features_map(other, images, name, 0))


# ---- less work, the same maps ----


def test_channels_of_zeros_are_not_run_and_weigh_nothing() -> None:
    model, images = Strided().double().eval(), torch.rand(2, 3, 8, 8).double()
    with torch.no_grad():
        model.features[0].bias[[1, 4]] = -1e3
    dead = activations_of(model, Layer("features"), images[0]).eq(0).all(2).all(1)
    assert dead[1]
    assert dead[4]
    alive = int((~torch.stack([activations_of(model, Layer("features"), i).eq(0).all(2).all(1) for i in images])).sum())
    explainer = AblationCAM(internal_batch_size=1)
    _, weights = explainer.channel_weights(model, images, 1, Layer("features"))
    assert weights[:, 1].eq(0).all()
    assert weights[:, 4].eq(0).all()
    sizes = rows_through(model.head, lambda: features_map(model, images, explainer))
    assert sizes.count(1) == alive
    assert max(sizes) == 2  # the forward pass, and the tail's once to see that it is right


def test_all_constant_channels_share_one_run() -> None:
    model, images = Strided().double().eval(), torch.rand(1, 3, 8, 8).double()
    with torch.no_grad():
        model.features[0].weight[[1, 4, 6]] = 0
        model.features[0].bias[[1, 4, 6]] = torch.tensor([-1.0, 2.0, 3.0]).double()
    (alive,) = (activations_of(model, Layer("features"), images[0]).flatten(1).std(1) > 0).sum()[None].tolist()
    sizes = rows_through(model.head, lambda: features_map(model, images, ScoreCAM(internal_batch_size=1)))
    assert len(sizes) == 1 + alive + 1
    expected = literal_score(model, Layer("features"), images[0], 1)[1]
    torch.testing.assert_close(features_map(model, images, "scorecam")[0], expected)


@pytest.mark.parametrize("name", BOTH)
def test_a_model_that_sees_nothing_gives_a_map_of_zeros(name: str) -> None:
    model = Strided()
    with torch.no_grad():
        model.features[0].bias.fill_(-1e3)
    assert torch.equal(features_map(model, torch.rand(2, 3, 8, 8), name), torch.zeros(2, 8, 8))


def test_scorecam_top_keeps_the_channels_of_highest_energy() -> None:
    model, images = Strided().double().eval(), torch.rand(2, 3, 8, 8).double()
    layer = Layer("features")
    activations, weights = ScoreCAM(top=3).channel_weights(model, images, 1, layer)
    _, everything = ScoreCAM().channel_weights(model, images, 1, layer)
    for i in range(2):
        order = sorted(range(8), key=lambda k: -float((activations[i, k] ** 2).sum()))
        assert weights[i].nonzero().flatten().tolist() == sorted(order[:3])
        expected = everything[i, order[:3]] / everything[i, order[:3]].sum()
        torch.testing.assert_close(weights[i, order[:3]], expected)
    assert max(rows_through(model.head, lambda: features_map(model, images, ScoreCAM(top=3)))) == 6
    torch.testing.assert_close(features_map(model, images, ScoreCAM(top=100)), features_map(model, images, ScoreCAM()))


def test_where_tracing_fails_whole_forward_passes_give_the_same_map(caplog: pytest.LogCaptureFixture) -> None:
    model = Untraceable().double().eval()
    traceable = Strided().double().eval()
    traceable.load_state_dict(model.state_dict())
    images = torch.rand(3, 3, 8, 8).double()
    with caplog.at_level(logging.INFO, "sightline.network.tap"):
        maps = features_map(model, images, AblationCAM(internal_batch_size=5))
    assert "runs as full forward passes" in caplog.text
    assert hooks(model) == 0
    torch.testing.assert_close(maps, features_map(traceable, images, "ablationcam"))


# ---- batches and memory ----


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_equals_its_images_one_by_one(name: str, layout: str) -> None:
    model, layer, images = make(layout)
    maps = sl.explain(model, images, name, layer=layer)
    assert maps.shape == (2, 8, 12)
    torch.testing.assert_close(maps, torch.cat([sl.explain(model, image[None], name, layer=layer) for image in images]))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("internal_batch_size", [1, 3, 1000])
def test_the_chunk_changes_the_calls_and_not_the_maps(name: str, internal_batch_size: int) -> None:
    model, images = Strided().double().eval(), torch.rand(2, 3, 8, 8).double()
    explainer = sl.create_explainer(name, internal_batch_size=internal_batch_size)
    torch.testing.assert_close(features_map(model, images, explainer), features_map(model, images, name))
    assert max(rows_through(model.head, lambda: features_map(model, images, explainer))) <= max(internal_batch_size, 2)


def test_a_chunk_is_counted_by_the_activations_where_the_tail_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 16, 16)  # 256 pixels each, and activations 8 x 4 x 4 = 128
    with torch.no_grad():
        cut, whole = Strided().eval(), Untraceable().eval()
        for model in (cut, whole):
            model.features[0].bias.fill_(1)  # every channel is alive
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", 5 * 128)
    assert max(rows_through(cut.head, lambda: features_map(cut, images, "ablationcam"))) == 5
    assert max(rows_through(whole.head, lambda: features_map(whole, images, "ablationcam"))) == 2
    assert max(rows_through(cut.head, lambda: features_map(cut, images, "scorecam"))) == 2


class Largest(TorchDispatchMode):
    """The most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and not func.is_view:
            self.elements = max(self.elements, output.numel())
        return output


@pytest.mark.parametrize("name", BOTH)
def test_memory_is_bounded_whatever_the_number_of_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows at once would be 2 x 64 masked images of 3 x 32 x 32, or ablated activations of 64 x 8 x 8."""
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", 8 * 32**2)
    model, images = Strided(channels=64).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        model.features[0].bias.fill_(1)
    with Largest() as largest:
        features_map(model, images, name)
    # An internal batch is 8 images; the most that the model makes of one, 64 x 8 x 8, is 4 elements a pixel.
    assert largest.elements <= 8 * 4 * 32**2
    assert largest.elements < min(2 * 64 * 3 * 32**2, 2 * 64 * 64 * 8**2) / 10


# ---- the peers ----


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(1)
    model = torchvision.models.resnet18()
    model.layer4 = nn.Sequential(model.layer4, nn.Conv2d(512, 24, 1), nn.ReLU())
    model.fc = nn.Linear(24, 3)
    nn.init.constant_(model.fc.bias, 1.0)  # the peer divides by the score, whatever its sign
    nn.init.normal_(model.fc.weight, std=0.3)
    return model.double().eval()


def peer_weights(kind: str, model: nn.Module, images: Tensor) -> Tensor:
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(peers, kind)(model=model, target_layers=[model.layer4]) as cam:
        with torch.no_grad():
            cam.activations_and_grads(images)
        activations = cam.activations_and_grads.activations[0].numpy()
        targets = [ClassifierOutputTarget(1)] * len(images)
        return torch.from_numpy(cam.get_cam_weights(images, model.layer4, targets, activations, None)).double()


def test_ablationcam_equals_pytorch_grad_cam(resnet: nn.Module) -> None:
    images = torch.rand(2, 3, 64, 64).double()
    activations, weights = AblationCAM().channel_weights(resnet, images, 1, Layer("layer4"))
    assert activations.amin() == 0  # it fills with 0 only where that is the minimum
    assert resnet(images)[:, 1].min() > 0
    torch.testing.assert_close(weights, peer_weights("AblationCAM", resnet, images), atol=1e-6, rtol=1e-4)


def test_scorecam_equals_pytorch_grad_cam(resnet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    # It aligns the corners of what it resizes.
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))
    images = torch.rand(2, 3, 64, 64).double()
    _, weights = ScoreCAM().channel_weights(resnet, images, 1, Layer("layer4"))
    torch.testing.assert_close(weights, peer_weights("ScoreCAM", resnet, images), atol=1e-6, rtol=1e-4)


def test_scorecam_equals_torch_cam(resnet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = pytest.importorskip("torchcam.methods")
    # It scales a channel to [0, 1] before it is resized, and not after.
    resize = methods.ScoreCAM._upsample
    monkeypatch.setattr(
        methods.ScoreCAM, "_upsample", lambda self, channels: normalize_maps(resize(self, channels)[:, 0])[:, None]
    )
    images = torch.rand(2, 3, 64, 64).double()
    activations, weights = ScoreCAM().channel_weights(resnet, images, 1, Layer("layer4"))
    with methods.ScoreCAM(resnet, "layer4") as cam:
        with torch.no_grad():
            resnet(images)
        (theirs,) = cam(1, normalized=False)
    ours = (weights[:, :, None, None] * activations).sum(1).relu()
    torch.testing.assert_close(ours, theirs.double(), atol=1e-6, rtol=1e-4)


# ---- the explainers as users call them ----


@pytest.mark.parametrize("name", BOTH)
def test_the_maps_of_several_layers_are_averaged(name: str) -> None:
    model, images = TinyCNN().double(), torch.rand(2, 3, 6, 6).double()
    layers = ["features.1", "features.3"]
    single = [sl.explain(model, images, name, layer=layer) for layer in layers]
    torch.testing.assert_close(sl.explain(model, images, name, layer=layers), (single[0] + single[1]) / 2)


@pytest.mark.parametrize("name", BOTH)
def test_forward_cams_leave_no_hooks_also_after_an_exception(name: str) -> None:
    model, images = Strided().train(), torch.rand(2, 3, 8, 8)
    features_map(model, images, name)
    with pytest.raises(sl.SightlineError, match=r"the target function returned shape \(\)"):
        features_map(model, images, name, lambda output: output.sum())
    assert hooks(model) == 0
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", BOTH)
def test_the_images_are_not_touched(name: str) -> None:
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    features_map(Strided(), images, name)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", BOTH)
def test_autocast_gives_float32_maps(name: str) -> None:
    model, images = Strided(), torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        maps = features_map(model, images, name)
    assert maps.dtype == torch.float32


@pytest.mark.parametrize("name", BOTH)
def test_forward_cams_copies_and_pickles_give_equal_maps(name: str) -> None:
    model, images = Strided(), torch.rand(1, 3, 8, 8)
    explainer = sl.create_explainer(name, internal_batch_size=2)
    other = pickle.loads(pickle.dumps(copy.deepcopy(explainer)))
    assert torch.equal(features_map(model, images, other), features_map(model, images, explainer))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ablationcam", {"internal_batch_size": 0}, "internal_batch_size is 0"),
        ("scorecam", {"top": 0}, "top is 0; expected a whole number >= 1"),
        ("scorecam", {"softmax": True}, "unknown option of 'scorecam': 'softmax'"),
    ],
)
def test_forward_cams_invalid_options_raise(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.SightlineError, match=message):
        sl.create_explainer(name, **options)
