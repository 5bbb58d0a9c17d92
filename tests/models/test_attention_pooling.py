"""Attention pooling: where it stands, what it computes and how it ships."""

import copy
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, Wrapper, batch_of
from sightline.errors import NotDefinedError, SightlineError
from sightline.models.gates import insert_gate, insert_pooling_gate, pooling_gate_of
from sightline.models.pooling_place import pooling_place
from sightline.network.tap import Tap


def pooled(seed: int = 4) -> tuple[TinyCNN, nn.Module]:
    """A tiny network with an attention that differs from place to place."""
    torch.manual_seed(seed)
    model = TinyCNN().double()
    _, gate = insert_pooling_gate(model)
    opened(gate)
    return model, gate


def opened(gate: nn.Module) -> None:
    with torch.no_grad():
        gate.weight.copy_(torch.linspace(-2, 3, gate.weight.numel()))


class ReluInBetween(nn.Module):
    """A ReLU that is no module, as in DenseNet, and places that are averaged by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).relu().mean((2, 3)))


class ConvolutionHead(nn.Module):
    """A head that is a 1 x 1 convolution, before or after the mean."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layer(x)
        if self.first:
            return self.head(features).mean((2, 3))
        return self.head(features.mean((2, 3), keepdim=True)).flatten(1)


class GreatestPlace(nn.Module):
    """Global max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).amax((2, 3)))


# ---- where it stands ----


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (TinyCNN(), ("features", 4, 1)),
        (TinyCNN(1).double(), ("features", 4, 1)),
        (Wrapper(TinyCNN()), ("net.features", 4, 1)),
        (ReluInBetween(), ("layer", 4, 1)),
        (ConvolutionHead(first=True), ("layer", 4, 1)),
        (ConvolutionHead(first=False), ("layer", 4, 1)),
        (torchvision.models.resnet18(num_classes=2), ("layer4", 512, 1)),
        (torchvision.models.shufflenet_v2_x0_5(num_classes=2), ("conv5", 1024, 1)),
        (timm.create_model("tf_efficientnet_lite0", num_classes=2), ("bn2", 1280, 1)),
        (timm.create_model("test_convnext", num_classes=2), ("norm_pre", 64, 1)),
        (
            timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, depths=(1, 1), embed_dim=24, img_size=112),
            ("norm", 48, -1),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_pooling_place_is_found_by_running_the_model(model: nn.Module, place: tuple[str, int, int]) -> None:
    assert pooling_place(model) == place
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


@pytest.mark.parametrize(
    "model",
    [
        GreatestPlace(),
        torchvision.models.VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=2),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)),
    ],
    ids=["max", "class token", "flat"],
)
def test_models_that_do_not_average_are_rejected(model: nn.Module) -> None:
    with torch.no_grad():
        model(torch.rand(1, 3, *([32, 32] if hasattr(model, "patch_size") else [224, 224])))
    with pytest.raises(SightlineError, match=r"does not classify by the mean of a feature map.*`linear`"):
        insert_pooling_gate(model)


# ---- what it computes ----


def test_attention_pooling_logits_follow_the_equation() -> None:
    model, gate = pooled()
    images = batch_of().images
    features = model.features.cpu()[:3](images)
    features = F.softplus(features)
    attention = (torch.einsum("bchw,c->bhw", features, gate.weight[0]) + gate.bias).sigmoid()
    weights = attention**2 / (attention**2).sum((1, 2), keepdim=True)
    means = torch.einsum("bchw,bhw->bc", features, weights)
    torch.testing.assert_close(model(images), model.classifier(model.head[2:](means)))


def test_a_new_one_changes_nothing_and_a_closed_one_stays_finite() -> None:
    model, images = TinyCNN().double(), batch_of().images
    before = model(images)
    name, gate = insert_pooling_gate(model)
    assert name == "features.3"
    assert type(model) is TinyCNN
    torch.testing.assert_close(model(images), before)
    with torch.no_grad():
        gate.bias.fill_(-1e4)
    torch.testing.assert_close(model(images), before)
    single = copy.deepcopy(model).float()
    assert single(images.float()).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert single(images.float()).isfinite().all()


def test_channels_last_features_are_pooled_per_position() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, depths=(1, 1), embed_dim=24, img_size=112)
    model.eval()
    _, gate = insert_pooling_gate(model)
    opened(gate)
    images = torch.rand(2, 3, 112, 112)
    plain = copy.deepcopy(model)
    plain.norm._forward_hooks.clear()
    features = plain.norm(plain.layers(plain.patch_embed(images)))
    weights = (features @ gate.weight[0] + gate.bias).sigmoid() ** 2
    means = (features * weights[..., None]).sum((1, 2)) / weights.sum((1, 2))[:, None]
    torch.testing.assert_close(model(images), model.head.fc(means), rtol=1e-4, atol=1e-5)


def test_a_gate_and_a_pooling_gate_in_one_layer_apply_in_order() -> None:
    model, images = TinyCNN().double(), batch_of().images
    _, gate = insert_gate(model, "features.3")
    _, pooling = insert_pooling_gate(model)
    opened(gate), opened(pooling)
    features = F.softplus(model.features[:3](images))
    features = features * torch.einsum("bchw,c->bhw", features, gate.weight[0]).add(gate.bias).sigmoid()[:, None]
    squares = torch.einsum("bchw,c->bhw", features, pooling.weight[0]).sigmoid() ** 2
    means = torch.einsum("bchw,bhw->bc", features, squares / squares.sum((1, 2), keepdim=True))
    torch.testing.assert_close(model(images), model.classifier(model.head[2:](means)))


# ---- how it ships ----


def test_copies_and_pickles_pool_by_their_own_attention() -> None:
    model, _ = pooled()
    images = batch_of().images
    expected = model(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), expected)
        with torch.no_grad():
            pooling_gate_of(other).weight.mul_(-1)
        assert not torch.allclose(other(images), expected)
        assert torch.equal(model(images), expected)
    again, gate = insert_pooling_gate(model)
    assert (again, gate) == ("features.3", pooling_gate_of(model))
    assert len(model.features[3]._forward_hooks) == 1


@pytest.mark.parametrize("name", ["torchvision/shufflenet_v2_x0_5", "timm/test_resnet", "sightline/small_cnn"])
def test_load_model_puts_it_back(name: str, tmp_path: Path) -> None:
    model = sl.load_model(name, classes=3)[0].eval()
    place, gate = insert_pooling_gate(model)
    opened(gate)
    save_file(model.state_dict(), tmp_path / "pooled.safetensors")
    again = sl.load_model(name, tmp_path / "pooled.safetensors")[0].eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    assert {key for key in again.state_dict() if "attention" in key} == {
        f"{place}.attention_pooling.weight", f"{place}.attention_pooling.bias",
    }  # fmt: skip
    tail = Tap(model, place).tail(images)
    assert tail.is_cut
    torch.testing.assert_close(tail(tail.raw), model(images))


def test_attention_pooling_is_exported_with_the_model() -> None:
    model, _ = pooled()
    images = batch_of().images
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


# ---- its map ----


def test_the_explainer_shows_the_attention() -> None:
    model, gate = pooled()
    images = batch_of(side=8).images
    logits = torch.einsum("bchw,c->bhw", F.softplus(model.features[:3](images)), gate.weight[0]) + gate.bias
    low, high = (f(logits.sigmoid(), (1, 2), keepdim=True) for f in (torch.amin, torch.amax))
    expected = (logits.sigmoid() - low) / (high - low)
    torch.testing.assert_close(sl.explain(model, images, "attention_pooling"), expected.detach())
    with pytest.raises(NotDefinedError, match="TinyCNN has no attention pooling"):
        sl.explain(TinyCNN().double(), images, "attention_pooling")
