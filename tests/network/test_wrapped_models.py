"""A known model is recognized inside a wrapper."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torchvision.io import decode_image
from torchvision.transforms.v2 import Normalize
from torchvision.transforms.v2.functional import resize

import sightline as sl
from networks import Wrapper
from sightline.errors import SightlineError
from sightline.network.layers import default_layer, resolve_layers
from sightline.network.layout import Layer

timm = pytest.importorskip("timm")


class Backbone(Wrapper):
    """Features of a known model, and a head of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.head = nn.Linear(net.num_features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.net(x))


WRAPPERS = {
    "net": Wrapper,
    "1": lambda net: nn.Sequential(nn.Identity(), net),
    "net.net": lambda net: Wrapper(Wrapper(net)),
    "net.0.module": lambda net: Wrapper(nn.Sequential(nn.DataParallel(net))),
}


@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=12),
        lambda: timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=12, num_classes=3),
        lambda: timm.create_model("mobilenetv3_small_050"),
        lambda: timm.create_model("tf_efficientnet_lite0"),
        lambda: torchvision.models.SwinTransformer([4, 4], 12, [1, 1, 1, 1], [1, 1, 1, 1], [7, 7]),
        lambda: torchvision.models.VisionTransformer(224, 32, 2, 2, 12, 24),
        torchvision.models.resnet18,
        torchvision.models.squeezenet1_1,
    ],
)
def test_the_map_is_that_of_the_model_inside(prefix: str, build) -> None:
    torch.manual_seed(0)
    net = build().eval()
    model, bare = WRAPPERS[prefix](net).eval(), default_layer(net)
    assert default_layer(model) == Layer(f"{prefix}.{bare.name}", bare.layout, bare.prefix)
    assert resolve_layers(model, f"{prefix}.{bare.name}") == [default_layer(model)]
    if prefix != "net":
        return
    images = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(sl.explain(model, images), sl.explain(net, images))


def test_a_backbone_under_another_head_is_recognized() -> None:
    net = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=12, num_classes=0)
    assert default_layer(Backbone(net)) == Layer("net.layers.3", "channels_last")


def test_a_layer_goes_by_the_innermost_known_model_around_it() -> None:
    with torch.device("meta"):
        net = timm.create_model("vit_small_r26_s32_224", depth=2)  # a ResNet makes the transformer's tokens
    model = Wrapper(net)
    assert default_layer(model) == Layer("net.blocks.1.norm1", "tokens", 1)
    assert resolve_layers(model, "net.patch_embed.backbone.stages.2") == [Layer("net.patch_embed.backbone.stages.2")]


class Pair(nn.Module):
    def __init__(self, both: bool) -> None:
        super().__init__()
        self.both = both
        self.a, self.b = torchvision.models.resnet18(), torchvision.models.squeezenet1_1()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(x) if self.both else self.b(x)


def test_of_two_known_models_the_one_that_runs_counts() -> None:
    images = torch.rand(1, 3, 64, 64)
    assert sl.Tap(Pair(both=False).eval())(images).layers == [Layer("b.features")]
    with pytest.raises(
        SightlineError, match=r"2 known models, 'a', 'b'; give layer=, such as 'a.layer4' or 'b.features'"
    ):
        sl.Tap(Pair(both=True).eval())(images)


def test_maps_of_real_weights_are_those_of_the_bare_model(data_folder: Path) -> None:
    net = timm.create_model("tf_efficientnet_lite0")
    net.load_state_dict(load_file(data_folder / "weights" / "efficientnet_lite0_imagenet1k.safetensors"))
    net.eval()
    files = sorted((data_folder / "pets" / "images").glob("*.jpg"))[:4]
    images = torch.stack([resize(decode_image(str(file)), [224, 224]) for file in files]) / 255
    spec = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (224, 224))
    maps = sl.explain(net, images, input_spec=spec)
    torch.testing.assert_close(sl.explain(Wrapper(net).eval(), images, input_spec=spec), maps)
    normalized = nn.Sequential(Normalize([0.5] * 3, [0.5] * 3), net).eval()
    torch.testing.assert_close(sl.explain(normalized, images), maps, rtol=1e-4, atol=1e-4)
