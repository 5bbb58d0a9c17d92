"""Each CAM against its formula written out by hand, and against an independent library on real architectures."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.explainers import normalize_maps, resize_maps
from sightline.explainers.cam import (
    CAM,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    principal,
    summed,
    xgradcam,
)
from sightline.network.tap import Tap

ALL = ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam", "randomcam"]


# ---- the formulas, literally: loops over channels and places, one image at a time ----


def literal(name: str, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The map of one image from activations and gradients (C, h, w), in float64, as methods are printed."""
    channels, height, width = a.shape
    total = np.zeros((height, width))
    for k in range(channels):
        if name == "gradcam":
            total += g[k].sum() / (height * width) * a[k]
        elif name == "gradcam++":
            weight = 0.0
            for i in range(height):
                for j in range(width):
                    denominator = 2 * g[k, i, j] ** 2 + a[k].sum() * g[k, i, j] ** 3
                    alpha = g[k, i, j] ** 2 / denominator if denominator != 0 else 0.0
                    weight += alpha * max(g[k, i, j], 0)
            total += weight * a[k]
        elif name == "xgradcam":
            if abs(a[k].sum()) > 1e-12 * np.abs(a[k]).sum():
                total += sum(a[k, i, j] / a[k].sum() * g[k, i, j] for i in range(height) for j in range(width)) * a[k]
        elif name == "hirescam":
            total += g[k] * a[k]
        elif name == "layercam":
            total += np.maximum(g[k], 0) * a[k]
    if name == "eigencam":
        _, _, right = np.linalg.svd(a.reshape(channels, -1).T, full_matrices=False)
        total = (a.reshape(channels, -1).T @ right[0]).reshape(height, width)
        total = -total if total.sum() < 0 else total
    return np.maximum(total, 0)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "layercam": layercam,
}


@pytest.mark.parametrize("name", [*FUNCTIONS, "eigencam"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 3), (2, 20, 3, 3)], ids=["more places", "more channels"])
def test_each_function_equals_its_formula(name: str, shape: tuple[int, ...]) -> None:
    a, g = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    a[0, 0] = 0  # a dead channel
    g[1, 1] = 0
    expected = np.stack([literal(name, a[i].numpy(), g[i].numpy()) for i in range(shape[0])])
    found = principal(a) if name == "eigencam" else summed(FUNCTIONS[name](a, g))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_a_channel_that_cancels_out_has_no_weight_in_xgradcam() -> None:
    a = torch.tensor([[[[1.0, -1.0]], [[2.0, 1.0]]]], dtype=torch.float64)
    g = torch.ones_like(a)
    torch.testing.assert_close(summed(xgradcam(a, g)), torch.tensor([[[2.0, 1.0]]], dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (2, 3, 4, 4)])
@pytest.mark.parametrize("center", [False, True])
def test_eigencam_does_not_depend_on_the_magnitude(scale: float, shape: tuple[int, ...], center: bool) -> None:
    """Squares of these values fit no float32; the reference is the same in float64."""
    contributions = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = normalize_maps(principal(contributions.double() * scale, center))
    found = normalize_maps(principal(contributions * scale, center))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


def test_centred_eigencam_points_where_the_channels_are_active() -> None:
    a = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    a[0, :, 1, 2] = torch.tensor([1.0, 2.0, 0.5, 1.5])
    map_ = principal(a, center=True)
    assert map_.argmax() == 5
    # By hand: the centred matrix has rank one, its column (-1, ..., 8, ...) / 9 times the norm of the four values.
    torch.testing.assert_close(map_[0, 1, 2], torch.tensor(8 / 9 * 7.5**0.5, dtype=torch.float64))


# ---- the peer ----


def peer_maps(
    kind: str,
    model: nn.Module,
    layer: nn.Module,
    x: Tensor,
    reshape: Callable | None = None,
    eigen_smooth: bool = False,
) -> Tensor:
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    classes = {
        "gradcam": peers.GradCAM,
        "gradcam++": peers.GradCAMPlusPlus,
        "xgradcam": peers.XGradCAM,
        "hirescam": peers.HiResCAM,
        "layercam": peers.LayerCAM,
        "eigencam": peers.EigenCAM,
    }

    class Raw(classes[kind]):  # type: ignore[misc,valid-type]
        """The peer's weights and sum, before its own resizing and normalisation."""

    with Raw(model=model, target_layers=[layer], reshape_transform=reshape) as cam:
        targets = [ClassifierOutputTarget(1)] * len(x)
        cam.outputs = cam.activations_and_grads(x)
        if cam.uses_gradients:
            model.zero_grad()
            sum(t(o) for t, o in zip(targets, cam.outputs)).backward(retain_graph=True)
        activations = cam.activations_and_grads.activations[0].cpu().data.numpy()
        gradients = cam.activations_and_grads.gradients
        gradients = gradients[0].cpu().data.numpy() if gradients else activations
        raw = cam.get_cam_image(x, layer, targets, activations, gradients, False)
    return torch.from_numpy(np.maximum(raw, 0)).double()


def to_unit(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """The same resizing and normalisation for both."""
    return normalize_maps(resize_maps(raw, size))


class ClonedOutput(nn.Module):
    """DenseNet's activations are overwritten in place; the peer is tapped at a copy."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.copy = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.copy(self.features(x)).clone()


def networks(name: str, data_folder: Path | None) -> tuple[nn.Module, str, str, Callable | None]:
    """(model, our layer, the peer's layer, the peer's reshape)."""
    torch.manual_seed(1)
    if name == "efficientnet_lite0":
        model, _ = sl.load_model(
            "timm/tf_efficientnet_lite0", weights=str(data_folder / "weights/efficientnet_lite0_imagenet1k.safetensors")
        )
        return model, "bn2", "bn2", None
    if name == "vit":
        timm = pytest.importorskip("timm")
        model = timm.create_model("vit_tiny_patch16_224", img_size=96)
        nn.init.normal_(model.head.weight, std=0.1)

        def reshape(tokens: Tensor) -> Tensor:
            return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 6, 6)

        return model, "blocks.11.norm1", "blocks.11.norm1", reshape
    model = torchvision.models.get_model(name)
    if name == "densenet121":
        model.features = ClonedOutput(model.features)
        return model, "features", "features.copy", None
    return model, Tap(model).layers[0].name, Tap(model).layers[0].name, None


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit",
        "efficientnet_lite0",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg16", "convnext_tiny", "densenet121")),
    ],
)
def test_maps_equal_those_of_the_peer(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("data_folder") if name == "efficientnet_lite0" else None
    model, ours, theirs, reshape = networks(name, folder)
    model = model.double().eval()
    x = torch.rand(2, 3, 96, 96, dtype=torch.float64)
    tapped = Tap(model, ours)(x)
    targets = torch.ones(2, dtype=torch.int64)
    compared = 0
    options: dict[str, dict[str, object]] = {"gradcam++": {"eps": 1e-6}, "eigencam": {"center": True}}
    for kind in ("gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam"):
        explainer = sl.create_explainer(kind, **options.get(kind, {}))
        assert isinstance(explainer, CAM)
        raw = explainer.raw_maps(tapped, targets)[0].relu()
        peer = peer_maps(kind, model, model.get_submodule(theirs), x, reshape)
        if kind == "eigencam":  # the peer's sign is arbitrary: compare where both point the same way
            usable = (raw * peer).flatten(1).sum(1) > 0
        else:
            usable = torch.maximum(raw.flatten(1).amax(1), peer.flatten(1).amax(1)) >= 1e-3
        if usable.any():
            compared += 1
            torch.testing.assert_close(
                to_unit(raw, (96, 96))[usable], to_unit(peer, (96, 96))[usable], atol=1e-4, rtol=0
            )
    assert compared >= 3


@pytest.mark.parametrize(
    ("name", "theirs", "layer"),
    [
        ("gradcam", "GradCAM", "layer3"),
        ("gradcam", "GradCAM", ["layer2", "layer4"]),
        ("gradcam", "CAM", "layer4"),  # before an average pool, the gradients are the classifier's weights
        ("xgradcam", "XGradCAM", "layer3"),
        ("layercam", "LayerCAM", "layer3"),
    ],
)
def test_maps_equal_those_of_torch_cam(name: str, theirs: str, layer: str | list[str]) -> None:
    methods = pytest.importorskip("torchcam.methods")
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    images, classes = torch.randn(3, 3, 64, 64, dtype=torch.float64), [4, 0, 2]
    options = {"fc_layer": "fc"} if theirs == "CAM" else {}
    with getattr(methods, theirs)(model, layer, **options) as cam:
        scores = model(images)
        peers = cam(classes, scores, normalized=False)
    expected = [to_unit(peer.detach().relu(), (64, 64)) for peer in peers]  # its CAM takes no positive part
    assert all(map_.amax() == 1 for map_ in expected)
    found = sl.explain(model, images, name, targets=torch.tensor(classes), layer=layer)
    torch.testing.assert_close(found, torch.stack(expected).mean(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gradcam", "layercam", "eigencam"])
def test_the_maps_of_several_layers_are_averaged(name: str) -> None:
    model, images = TinyCNN().double(), torch.rand(2, 3, 8, 8).double()
    layers = ["features.1", "features.3"]
    first, second = (sl.explain(model, images, name, layer=layer) for layer in layers)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(sl.explain(model, images, name, layer=layers), (first + second) / 2)


# ---- the explainer as users call it ----


@pytest.mark.parametrize("name", ALL)
def test_a_batch_equals_its_images_one_by_one(name: str) -> None:
    model, images = TinyCNN().double(), torch.rand(3, 3, 8, 10).double()
    maps = sl.explain(model, images, name)
    assert maps.shape == (3, 8, 10)
    one_by_one, explainer = [], sl.create_explainer(name)
    for image in images:
        one_by_one.append(explainer(model, image[None]))
    torch.testing.assert_close(maps, torch.cat(one_by_one))


def test_targets_default_to_the_predicted_class() -> None:
    model, images = TinyCNN(), torch.rand(4, 3, 8, 8)
    predicted = model(images).argmax(1)
    torch.testing.assert_close(sl.explain(model, images), sl.explain(model, images, targets=predicted))
    torch.testing.assert_close(
        sl.explain(model, images, targets=2), sl.explain(model, images, targets=torch.full((4,), 2))
    )


def test_an_input_spec_normalises_inside() -> None:
    model, images = TinyCNN(), torch.rand(2, 3, 8, 8)
    spec = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (8, 8))
    inside = sl.explain(model, images, input_spec=spec)
    outside = sl.explain(
        model, (images - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]
    )  # fmt: skip
    torch.testing.assert_close(inside, outside)
    with pytest.raises(
        SightlineError, match=r"images range over .*; expected \[0, 1\] because the input spec normalizes them"
    ):
        sl.explain(model, images * 255, input_spec=spec)


def test_one_channel_and_float_ranges_are_welcome_without_a_spec() -> None:
    maps = sl.explain(TinyCNN(channels=1), 100 * torch.randn(2, 1, 8, 8))
    assert maps.shape == (2, 8, 8)


def test_a_constant_map_is_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps = sl.explain(model, torch.full((1, 3, 4, 4), 0.5), layer="0")
    assert torch.equal(maps, torch.zeros(1, 4, 4))


def test_the_gaussian_ignores_the_image() -> None:
    maps = sl.explain(TinyCNN(), torch.rand(2, 3, 9, 9), "gaussian")
    assert torch.equal(maps[0], maps[1])
    assert maps[0].argmax() == 40
    torch.testing.assert_close(maps[0], maps[0].T.flip(0))


def test_random_weights_are_the_same_however_they_are_batched_and_differ_by_seed() -> None:
    model, images = TinyCNN(), torch.rand(4, 3, 8, 8)
    explainer = sl.create_explainer("randomcam", seed=1)
    halves = torch.cat([explainer(model, images[:2]), explainer(model, images[2:])])
    torch.testing.assert_close(halves, sl.create_explainer("randomcam", seed=1)(model, images))
    assert not torch.equal(halves, sl.create_explainer("randomcam", seed=2)(model, images))


@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_normalised_maps_ignore_scale_and_shift(scale: float, shift: float) -> None:
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(normalize_maps(scale * maps + shift), normalize_maps(maps))
    assert normalize_maps(maps).amin((1, 2)).eq(0).all()
    assert normalize_maps(maps).amax((1, 2)).eq(1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.rand(3, 8, 8)}, r"images have shape \(3, 8, 8\); expected \(B, C, H, W\)"),
        ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "dtype torch.uint8; expected a float"),
        ({"images": torch.full((2, 3, 8, 8), torch.nan)}, r"NaN or infinity in images \(images \[0, 1\]"),
        ({"images": torch.rand(0, 3, 8, 8)}, "none of them 0"),
        ({"images": [[1.0]]}, "image 0 is a float; expected a path"),
        ({"method": "gradcm"}, "unknown explainer 'gradcm'; did you mean 'gradcam'"),
        ({"targets": 3}, r"targets range over \[3, 3\]; the model has classes 0 .. 2"),
        ({"targets": torch.tensor([0.5, 1.0])}, "expected integer class indices"),
        ({"targets": torch.tensor([0, 1, 2])}, r"shape \(3,\); expected \(2,\)"),
        ({"layer": "nowhere"}, "unknown layer 'nowhere'"),
    ],
)
def test_explain_invalid_input_raises(arguments: dict[str, object], message: str) -> None:
    given_arguments: dict = {"images": torch.rand(2, 3, 8, 8), **arguments}
    with pytest.raises(SightlineError, match=message):
        sl.explain(TinyCNN(), **given_arguments)


def test_a_model_that_is_not_finite_is_named() -> None:
    model = TinyCNN()
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
    with pytest.raises(SightlineError, match=r"NaN or infinity in the maps .* is the model finite"):
        sl.explain(model, torch.rand(1, 3, 8, 8))


# ---- eigen smoothing ----


@pytest.mark.parametrize("kind", ["gradcam", "hirescam", "layercam", "xgradcam"])
def test_eigen_smoothing_equals_the_peer_up_to_its_sign(kind: str) -> None:
    svd = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    tapped = Tap(model, "layer3")(images)
    (ours,) = sl.create_explainer(kind, smooth="eigen").raw_maps(tapped, 1)
    with torch.enable_grad():
        (gradients,) = tapped.gradients(tapped.logits[:, 1])
    contributions = FUNCTIONS[kind](tapped.activations[0], gradients).detach()
    for mine, each in zip(ours, contributions):
        projection = torch.from_numpy(svd.get_2d_projection(each[None].numpy())[0])
        total = each.sum(0)
        sign = (projection * (total - total.mean())).sum().sign()  # the peer's own is arbitrary
        torch.testing.assert_close(mine, (sign * projection).relu(), rtol=0, atol=1e-4, check_dtype=False)


def test_eigen_smoothing_of_one_direction_is_the_centred_map_by_hand() -> None:
    a = torch.zeros(1, 2, 1, 3, dtype=torch.float64)
    a[0, 0, 0], a[0, 1, 0] = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([6.0, 0.0, 0.0])
    # Columns (2, -1, -1) and (4, -2, -2): rank one, direction (1, 2) / sqrt 5, projection (2, -1, -1) sqrt 5.
    torch.testing.assert_close(principal(a, center=True), torch.tensor([[[2 * 5**0.5, 0, 0]]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"])
def test_every_weighted_cam_can_be_smoothed(name: str) -> None:
    model, images = TinyCNN().double(), torch.randn(3, 3, 8, 8).double()
    smooth, plain = (sl.create_explainer(name, smooth=smooth)(model, images) for smooth in ("eigen", None))
    assert not torch.allclose(smooth, plain)
    explainer = pickle.loads(pickle.dumps(sl.create_explainer(name, smooth="eigen")))
    torch.testing.assert_close(torch.cat([explainer(model, image[None]) for image in images]), smooth)


def test_an_unknown_smoothing_is_rejected() -> None:
    with pytest.raises(SightlineError, match="smooth is 'mean'"):
        sl.create_explainer("gradcam", smooth="mean")
