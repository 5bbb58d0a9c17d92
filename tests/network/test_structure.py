"""The default layer of models of no known family, told by what they run, and of models for segmentation."""

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.network.execution import record, record_blank
from sightline.network.layers import default_layer
from sightline.network.layout import Layer
from sightline.network.structure import last_stage
from sightline.network.tap import Tap


def convolution(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Backwards(nn.Module):
    """Registers what runs last first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)
        self.late = convolution(6, 8)
        self.middle = convolution(4, 6)
        self.early = convolution(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.late(self.middle(self.early(x))).mean((2, 3)))


class Lists(nn.Module):
    """Holds its blocks in a list, which never runs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([convolution(3, 4), convolution(4, 8)])
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


class PooledHead(nn.Module):
    """Convolves and normalizes what it has pooled, as MobileNetV3 does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = convolution(3, 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(8, 16, 1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv_head(self.pool(self.features(x))).relu().flatten(1))


class Squeezed(nn.Module):
    """A block that ends in squeeze-and-excitation, which convolves what it has pooled."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = convolution(3, 8)
            self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Block()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(x).mean((2, 3)))


class AllConvolutional(nn.Module):
    """Ends in a convolution with one channel a class, and pools it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(convolution(3, 4), convolution(4, 8), nn.Conv2d(8, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean((2, 3))


class OneActivation(nn.Module):
    """Uses one activation after each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.norm(self.conv2(self.relu(self.conv1(x))))).mean((2, 3)))


class SmallImages(nn.Module):
    """Takes images of 20 x 24 pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4 * 10 * 12, 3)
        self.stage = convolution(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage(x).flatten(1))


class Segmenter(nn.Module):
    """A U-Net with an auxiliary head, which runs last and is registered last."""

    def __init__(self) -> None:
        super().__init__()
        self.up = convolution(8 + 4, 6, stride=1)
        self.head = nn.Conv2d(6, 5, 1)
        self.down1, self.down2 = convolution(3, 4), convolution(4, 8)
        self.auxiliary = nn.Sequential(convolution(8, 8, stride=1), nn.Conv2d(8, 5, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.down1(x)
        coarse = self.down2(fine)
        up = self.up(torch.cat([F.interpolate(coarse, size=fine.shape[-2:]), fine], 1))
        out = F.interpolate(self.head(up), size=x.shape[-2:], mode="bilinear")
        return {"out": out, "aux": self.auxiliary(coarse)}


class Patches(nn.Module):
    """A vision transformer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True) for _ in "ab"
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x).flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class ConvolvedTokens(nn.Module):
    """Convolves its tokens inside its blocks, as SegFormer does; its embedding is large."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(64)
            self.fc1, self.conv, self.fc2 = nn.Linear(64, 8), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Linear(8, 64)

        def forward(self, x: Tensor, height: int) -> Tensor:
            tokens = self.fc1(self.norm(x)).transpose(1, 2)
            convolved = self.conv(tokens.unflatten(2, (height, tokens.shape[2] // height)))
            return x + self.fc2(convolved.flatten(2).transpose(1, 2))

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 64, 16, 8, 4)
        self.blocks = nn.ModuleList([self.Block(), self.Block()])
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        height = x.shape[2]
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, height)
        return self.head(x.mean(1))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (Backwards, "late"),
        (Lists, "blocks.1"),
        (PooledHead, "features"),
        (Squeezed, "block"),
        (AllConvolutional, "net.1"),
        (OneActivation, "norm"),  # an activation that runs twice cannot be tapped
        (TinyCNN, "features"),
    ],
)
def test_the_layer_is_the_last_stage_that_runs(build, name: str) -> None:
    model = build().eval()
    images = torch.rand(2, 3, 32, 48)
    assert default_layer(model) == default_layer(model, images) == Layer(name)
    with torch.no_grad():
        expected = model.get_submodule(name)
        kept: list[Tensor] = []
        with expected.register_forward_hook(lambda module, args, output: kept.append(output)):
            model(images)
    torch.testing.assert_close(sl.Tap(model)(images).activations[0], kept[0])


def test_a_small_image_does_not_change_the_layer() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.Sequential(*(convolution(3 if i == 0 else 4, 4) for i in range(5)))
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.stages(x).mean((2, 3)))

    model = Deep()
    assert {default_layer(model, torch.rand(1, 3, side, side)).name for side in (16, 32, 64)} == {"stages"}


def test_images_at_hand_tell_where_no_usual_size_does() -> None:
    model, images = SmallImages().eval(), torch.rand(2, 3, 20, 24)
    assert sl.Tap(model)(images).layers == [Layer("stage")]
    assert sl.explain(model, images).shape == (2, 20, 24)
    with pytest.raises(SightlineError, match=r"takes no blank image .* give layer="):
        sl.Tap(model).layers  # noqa: B018


def test_a_known_family_costs_no_pass_and_another_model_one() -> None:
    for model, passes in ((torchvision.models.squeezenet1_1(), 1), (Backwards(), 2)):
        sizes: list[int] = []
        with model.register_forward_hook(lambda module, args, output, sizes=sizes: sizes.append(len(output))):
            sl.explain(model.eval(), torch.rand(3, 3, 64, 64), method="gradcam")
        assert sizes == [1, 3][-passes:]


def test_a_recorded_pass_leaves_no_trace() -> None:
    model = nn.Sequential(TinyCNN(), nn.Dropout()).train()
    model[0].head.eval()
    images = torch.rand(4, 3, 8, 8)
    state, flags = torch.get_rng_state(), [m.training for m in model.modules()]
    with torch.inference_mode():
        calls = record(model, images).calls
    assert [call.name for call in calls][-2:] == ["1", ""]
    assert calls[-1].taken == (1, 3, 8, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_blank_image_has_the_size_that_the_model_states() -> None:
    assert record_blank(torchvision.models.VisionTransformer(48, 16, 1, 1, 8, 8)).image == (1, 3, 48, 48)
    assert record_blank(TinyCNN(channels=1)).image == (1, 1, 224, 224)
    sl.check_model(nn.Sequential(torchvision.models.VisionTransformer(48, 16, 2, 1, 8, 8, num_classes=3)))


@pytest.mark.parametrize(
    "name", ["mnasnet0_5", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"]
)
def test_last_stage_of_the_recorded_modules_equals_the_default_layer(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    assert last_stage(model, record(model, torch.rand(1, 3, 64, 64))) == default_layer(model).name


# ---- segmentation ----


def test_a_dense_model_is_tapped_at_its_coarsest_stage() -> None:
    model, images = Segmenter().eval(), torch.rand(2, 3, 32, 48)
    assert sl.Tap(model)(images).layers == [Layer("down2")]


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("fcn_resnet50", "backbone.layer4"),
        ("deeplabv3_mobilenet_v3_large", "backbone.16"),
        ("lraspp_mobilenet_v3_large", "backbone.16"),
    ],
)
def test_torchvision_segmentation_models_have_a_default_layer_and_maps(name: str, layer: str, auxiliary: bool) -> None:
    options = {} if name.startswith("lraspp") else {"aux_loss": auxiliary}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5, **options).eval()
    assert default_layer(model) == Layer(layer)
    images, target = torch.rand(1, 3, 64, 96), sl.targets.semantic(3)
    maps = sl.explain(model, images, targets=target)

    activations = model.backbone(images)["out" if "out" in model.backbone.return_layers.values() else "high"].detach()
    activations.requires_grad_()
    place = model.get_submodule(layer)
    with place.register_forward_hook(lambda *_: activations):
        logits = model(images)["out"][:, 3]
    (slopes,) = torch.autograd.grad(logits.sum(), activations)
    raw = (slopes.mean((2, 3), keepdim=True) * activations).sum(1).relu().detach()
    torch.testing.assert_close(maps, sl.explainers.normalize_maps(sl.explainers.resize_maps(raw, (64, 96))))


def test_hugging_face_segmentation_models_have_a_default_layer_and_maps() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 8, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 2],
        decoder_hidden_size=8,
        num_labels=5,
    )
    for model in (
        transformers.SegformerForSemanticSegmentation(config).eval(),
        transformers.SegformerForImageClassification(config).eval(),
    ):
        (layer,) = sl.Tap(model).layers
        assert (layer.layout, layer.prefix) == ("tokens", 0)
        assert isinstance(model.get_submodule(layer.name), nn.LayerNorm)
        assert sl.Tap(model)(torch.rand(1, 3, 64, 96)).activations[0].shape == (1, 16, 2, 3)


# ---- poolings ----


class PooledBlock(nn.Module):
    """Pools what it has convolved, in its own forward."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x).relu(), 2)


def pooled_features() -> nn.Sequential:
    layers = [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
    ]
    return nn.Sequential(nn.Sequential(*layers, nn.ReLU(), nn.MaxPool2d(2)), nn.Flatten(), nn.Linear(8 * 16 * 24, 3))


def pooled_blocks() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(PooledBlock(3, 4), PooledBlock(4, 8)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


@pytest.mark.parametrize(("build", "layer"), [(pooled_features, "0.5"), (pooled_blocks, "0.1.conv")])
def test_the_default_layer_comes_before_the_last_pooling(build, layer) -> None:
    model = build().eval()
    tapped = Tap(model)(torch.rand(1, 3, 64, 96))
    assert tapped.layers[0].name == layer
    assert tapped.activations[0].shape == (1, 8, 32, 48)


@pytest.mark.parametrize(
    ("library", "name", "grid"),
    [
        ("torchvision", "alexnet", 13),
        ("torchvision", "vgg11", 14),
        ("torchvision", "vgg11_bn", 14),
        ("timm", "vgg11", 14),
    ],
)
def test_maps_of_alexnet_and_vgg_have_the_places_of_the_last_convolution(library, name, grid) -> None:
    module = pytest.importorskip(library)
    create = module.create_model if library == "timm" else module.models.get_model
    with torch.device("meta"):
        model = create(name).eval()
        shapes: list[torch.Size] = []
        place = model.get_submodule(default_layer(model).name)
        place.register_forward_hook(lambda module, args, output: shapes.append(output.shape[-2:]))
        model(torch.rand(1, 3, 224, 224))
    assert shapes == [(grid, grid)]


# ---- transformers ----


@pytest.mark.parametrize(
    ("build", "layer"), [(Patches, ("blocks.1.norm1", 1)), (ConvolvedTokens, ("blocks.1.norm", 0))]
)
def test_neither_a_patch_embedding_nor_a_detail_is_chosen_and_the_layers_that_the_error_names_work(
    build, layer
) -> None:
    model, images = build().eval(), torch.rand(2, 3, 32, 48)
    with pytest.raises(
        SightlineError, match=rf"cannot tell the target layer of {build.__name__}; give layer="
    ) as caught:
        sl.explain(model, images)
    found = re.findall(r"sightline\.Layer\('([\w.]+)', 'tokens', prefix=(\d)\)", str(caught.value))
    assert layer in [(name, int(prefix)) for name, prefix in found]
    for name, prefix in found:
        tapped = sl.Tap(model, Layer(name, "tokens", int(prefix)))(images)
        assert (tapped.gradients(tapped.logits[:, 0])[0] != 0).any(1).all()  # the score depends on every place


def test_a_classifier_that_averages_its_only_convolution_is_tapped_there() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert Tap(model)(torch.rand(2, 3, 8, 8)).layers[0].name == "1"
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert Tap(model)(torch.rand(2, 3, 8, 8)).layers[0].name == "1"  # another convolution is preferred
