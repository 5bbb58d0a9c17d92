"""A model opened at a layer, and left as it was."""

import copy
import gc
import pickle

import pytest
import torch
import torchvision
from torch import nn

import sightline as sl
from networks import InPlaceAfter, TinyCNN, Unlike
from sightline.errors import SightlineError
from sightline.network.layers import default_layer
from sightline.network.layout import Layer
from sightline.network.modes import evaluating
from sightline.network.tap import Tap, unwrap


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def by_hand(model: TinyCNN, images: torch.Tensor, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations and gradients without any hook."""
    activations = model.features(images).detach().requires_grad_()
    score = model.classifier(model.head(activations))[:, target].sum()
    return activations.detach(), torch.autograd.grad(score, activations)[0]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("mode", ["enabled", "no_grad", "inference_mode"])
def test_activations_and_gradients_equal_those_by_hand(train: bool, mode: str) -> None:
    model, images = TinyCNN().double(), torch.rand(2, 3, 8, 8).double()
    activations, gradients = by_hand(model, images, 1)
    context = {"enabled": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}[mode]
    with context():
        tapped = Tap(model, "features")(images, train=train)
    torch.testing.assert_close(tapped.activations[0], activations)
    torch.testing.assert_close(tapped.gradients(tapped.logits[:, 1])[0], gradients)
    torch.testing.assert_close(tapped.logits, model(images))


def test_the_trunk_has_no_graph_at_inference_and_one_in_training() -> None:
    model, images = TinyCNN(), torch.rand(1, 3, 8, 8)
    tap = Tap(model, "features")
    assert tap(images).raw[0].is_leaf
    assert tap(images, train=True).raw[0].grad_fn is not None


def test_a_frozen_trunk_still_gives_gradients() -> None:
    model, images = TinyCNN(), torch.rand(1, 3, 8, 8)
    model.features.requires_grad_(False)
    tapped = Tap(model, "features")(images, train=True)
    (gradients,) = tapped.gradients(tapped.logits[:, 0], create_graph=True)
    (of_head,) = torch.autograd.grad(gradients.pow(2).sum(), model.classifier.weight)
    assert of_head[0].abs().max() > 0


def test_activations_are_unchanged_by_in_place_operations_after_the_layer() -> None:
    model, images = InPlaceAfter(), torch.rand(2, 3, 8, 8)
    tapped = Tap(model, "layer")(images)
    torch.testing.assert_close(tapped.activations[0], model.layer(images))
    assert tapped.activations[0].min() < 0
    trained = Tap(model, "layer")(images, train=True)
    torch.testing.assert_close(trained.activations[0], model.layer(images))
    trained.gradients(trained.logits[:, 0], create_graph=True)


def test_explain_leaves_no_trace() -> None:
    model = torchvision.models.resnet18().train()
    model.layer2.eval()
    flags = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    sl.explain(model, torch.rand(2, 3, 64, 64))
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert hooks(model) == 0
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values()))


def test_an_exception_leaves_no_trace() -> None:
    class Failing(TinyCNN):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.features(x)
            raise RuntimeError("on purpose")

    model = Failing().train()
    with pytest.raises(RuntimeError, match="on purpose"):
        sl.explain(model, torch.rand(1, 3, 8, 8), layer="features")
    assert hooks(model) == 0
    assert model.training
    assert torch.is_grad_enabled()


def test_fifty_calls_keep_no_tensor() -> None:
    model, images = TinyCNN(), torch.rand(2, 3, 8, 8)

    def tensors() -> int:
        gc.collect()
        return sum(type(each) is torch.Tensor for each in gc.get_objects())

    sl.explain(model, images)
    before = tensors()
    for _ in range(50):
        sl.explain(model, images)
    assert tensors() <= before


def test_tap_copies_and_pickles() -> None:
    tap = Tap(TinyCNN(), "features")
    images = torch.rand(1, 3, 8, 8)
    for other in (copy.deepcopy(tap), pickle.loads(pickle.dumps(tap))):
        torch.testing.assert_close(other(images).logits, tap(images).logits)
        assert other.model is not tap.model


def test_wrappers_are_taken_off() -> None:
    model = TinyCNN()
    compiled = torch.compile(model)
    assert unwrap(compiled) is model
    assert unwrap(nn.DataParallel(model)) is model
    torch.testing.assert_close(
        sl.explain(compiled, torch.ones(1, 3, 8, 8)), sl.explain(model, torch.ones(1, 3, 8, 8))
    )  # fmt: skip


def test_a_layer_that_never_runs_or_runs_twice_is_an_error() -> None:
    class Twice(TinyCNN):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + super().forward(x)

    model, images = Twice(), torch.rand(1, 3, 8, 8)
    with pytest.raises(SightlineError, match="'features' runs more than once"):
        Tap(model, "features")(images)
    with pytest.raises(SightlineError, match="'unused' did not run"):
        Tap(model, "unused")(images)
    assert hooks(model) == 0


def test_autocast_gives_full_precision_maps_and_leaves_no_stale_weights() -> None:
    model, images = TinyCNN(), torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        maps = sl.explain(model, images)
        loss = model(images).float().sum()
    loss.backward()
    assert maps.dtype == torch.float32
    assert all(p.grad is not None for p in model.parameters())
    torch.testing.assert_close(maps, sl.explain(model, images), atol=0.1, rtol=0)


# ---- layers ----


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", Layer("layer4")),
        ("vgg11", Layer("features.19")),
        ("densenet121", Layer("features")),
        ("mobilenet_v3_small", Layer("features")),
        ("googlenet", Layer("inception5b")),
        ("convnext_tiny", Layer("features")),
        ("swin_t", Layer("features.7", "channels_last")),
        ("vit_b_32", Layer("encoder.layers.encoder_layer_11.ln_1", "tokens", 1)),
    ],
)
def test_default_layer_of_torchvision_is_the_expected_one(name: str, layer: Layer) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert default_layer(model) == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("tf_efficientnet_lite0", Layer("bn2")),
        ("convnext_atto", Layer("stages.3")),
        ("vit_tiny_patch16_224", Layer("blocks.11.norm1", "tokens", 1)),
        ("deit_tiny_distilled_patch16_224", Layer("blocks.11.norm1", "tokens", 2)),
        ("swin_tiny_patch4_window7_224", Layer("layers.3", "channels_last")),
        ("pvt_v2_b0", Layer("stages.3")),
    ],
)
def test_default_layer_of_timm_is_the_expected_one_and_gives_maps(name: str, layer: Layer) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name)
    assert default_layer(model) == layer
    maps = sl.explain(model.double(), torch.rand(1, 3, 224, 224).double())
    assert maps.shape == (1, 224, 224)


def test_a_plain_sequence_ends_after_its_last_activation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    assert default_layer(model) == Layer("4")


def test_penultimate_is_the_last_convolution_but_one() -> None:
    assert Tap(TinyCNN(), "penultimate").layers == [Layer("features.0")]


def test_a_module_or_a_list_may_be_given() -> None:
    model = TinyCNN()
    assert Tap(model, model.features).layers == [Layer("features")]
    assert Tap(model, ["features.0", model.features[2]]).layers == [Layer("features.0"), Layer("features.2")]
    images = torch.rand(2, 3, 8, 8)
    both = sl.explain(model, images, layer=["features.1", "features.3"])
    single = [sl.explain(model, images, layer=name) for name in ("features.1", "features.3")]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2)


def test_unknown_layers_and_models_raise() -> None:
    with pytest.raises(SightlineError, match="unknown layer 'featurs'; did you mean 'features'"):
        Tap(TinyCNN(), "featurs")
    with pytest.raises(SightlineError, match="not part of the model"):
        Tap(TinyCNN(), nn.ReLU())
    with pytest.raises(SightlineError, match=r"cannot tell the target layer of Unlike; give layer=, .*'norm'"):
        Tap(Unlike())(torch.rand(1, 3, 4, 6))


def test_a_norm_over_the_last_dimension_is_channels_last() -> None:
    model, images = Unlike(), torch.rand(2, 3, 4, 6)
    tapped = Tap(model, "norm")(images)
    assert tapped.activations[0].shape == (2, 8, 4, 6)
    torch.testing.assert_close(
        tapped.activations[0], model.norm(model.embed(images.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    )


def test_tokens_of_an_image_that_is_not_square() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), num_classes=3)
    assert Tap(model)(torch.rand(1, 3, 32, 64)).activations[0].shape == (1, 192, 2, 4)
    with pytest.raises(SightlineError, match="declare its layout"):
        Tap(model, Layer("blocks.3.norm1"))(torch.rand(1, 3, 32, 64)).activations  # noqa: B018


# ---- the tail ----


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet18", "densenet121", "mobilenet_v2", "vgg11", "efficientnet_b0", "vit_b_32"]
)
def test_a_cut_tail_gives_the_logits_of_the_model(name: str) -> None:
    model = torchvision.models.get_model(name).eval()
    images = torch.rand(2, 3, 224, 224)
    tail = Tap(model).tail(images)
    assert tail.is_cut
    with torch.no_grad():
        torch.testing.assert_close(tail(tail.raw), model(images), rtol=1e-4, atol=1e-5)
        picked = tail(tail.raw[[1, 0, 1]], of=torch.tensor([1, 0, 1]))
        torch.testing.assert_close(picked, model(images)[[1, 0, 1]], rtol=1e-4, atol=1e-5)


def test_a_tail_from_changed_activations_equals_a_hook_that_changes_them() -> None:
    model, images = torchvision.models.resnet18().eval(), torch.rand(1, 3, 64, 64)
    tail = Tap(model).tail(images)
    changed = tail.raw.clone()
    changed[:, 7] = 0
    handle = model.layer4.register_forward_hook(lambda *_: changed)
    with torch.no_grad():
        expected = model(images)
    handle.remove()
    torch.testing.assert_close(tail(changed), expected)


def test_where_tracing_fails_the_whole_model_runs_again() -> None:
    class Untraceable(TinyCNN):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 0 else x.mean((2, 3))

    model, images = Untraceable().eval(), torch.rand(2, 3, 8, 8)
    tail = Tap(model, "features").tail(images)
    assert not tail.is_cut
    with torch.no_grad():
        torch.testing.assert_close(tail(tail.raw), model(images))
        changed = tail.raw * 0.5
        torch.testing.assert_close(tail(changed[[1]], of=torch.tensor([1])), model.classifier(model.head(changed[[1]])))
    assert hooks(model) == 0


def test_evaluating_restores_every_flag() -> None:
    model = TinyCNN().train()
    model.head.eval()
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert model.training
    assert not model.head.training
