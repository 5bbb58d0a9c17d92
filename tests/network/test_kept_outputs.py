"""Outputs of a layer that a model takes from elsewhere: a hook, another form of the same tensor, hidden states."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline as sl
from sightline.network.layout import Layer
from zoo import PLAIN, WIDTHS, WINDOWS


class Plain(nn.Module):
    """A convolution, and a linear classifier of the mean of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).relu().mean((2, 3)))


class Keeps(Plain):
    """Takes the features from a hook of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, args: object, output: Tensor) -> None:
        self.kept = output

    def forward(self, images: Tensor) -> Tensor:
        self.conv(images)
        return self.head(self.kept.relu().mean((2, 3)))


class Pair(NamedTuple):
    tokens: Tensor
    grid: Tensor


class Stage(nn.Module):
    """Returns its features as tokens and as a feature map, which share their memory."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 4, 3, padding=1), make

    def forward(self, images: Tensor) -> Any:
        tokens = self.conv(images).flatten(2).transpose(1, 2).contiguous()
        return self.make(tokens, tokens.transpose(1, 2).unflatten(2, images.shape[2:]))


class Staged(Plain):
    """Takes the second form of what a stage returns."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.stage = Stage(make)
        self.stage.conv = self.conv

    def forward(self, images: Tensor) -> Tensor:
        output = self.stage(images)
        grid = output["grid"] if isinstance(output, dict) else output[1]
        return self.head(grid.relu().mean((2, 3)))


def like(model: nn.Module) -> Plain:
    plain = Plain()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("stage")})
    return plain.eval()


@pytest.mark.parametrize("method", ["gradcam", "layercam", "scorecam"])
def test_a_model_that_keeps_its_features_by_a_hook(method: str) -> None:
    torch.manual_seed(0)
    model, images = Keeps().eval(), torch.rand(2, 3, 8, 12)
    maps = sl.explain(model, images, method=method, layer="conv")
    torch.testing.assert_close(maps, sl.explain(like(model), images, method=method, layer="conv"))
    assert maps.std() > 0.05


def test_a_hook_that_changes_the_features_acts_before_they_are_taken() -> None:
    torch.manual_seed(0)
    model, images = Plain().eval(), torch.rand(2, 3, 8, 12)
    gains = torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None]
    features = model.conv(images)
    model.conv.register_forward_hook(lambda module, args, output: gains * output)
    tap = sl.Tap(model, "conv")
    tapped = tap(images)
    torch.testing.assert_close(tapped.activations[0], gains * features)
    torch.testing.assert_close(tapped.logits, model(images))
    tail = tap.tail(images)
    torch.testing.assert_close(tail(tail.raw), model(images))
    torch.testing.assert_close(tail(2 * tail.raw), model.head((2 * gains * features).relu().mean((2, 3))))


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda tokens, grid: (tokens, grid),
    "list": lambda tokens, grid: [tokens, grid],
    "named tuple": Pair,
    "mapping": lambda tokens, grid: {"tokens": tokens, "grid": grid},
}


@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
@pytest.mark.parametrize("form", FORMS)
def test_a_stage_that_returns_its_features_in_two_forms(form: str, method: str) -> None:
    torch.manual_seed(0)
    model, images = Staged(FORMS[form]).eval(), torch.rand(2, 3, 8, 12)
    maps = sl.explain(model, images, method=method, layer=Layer("stage", "tokens"))
    torch.testing.assert_close(maps, sl.explain(like(model), images, method=method, layer="conv"))


class Pyramid(nn.Module):
    """A small network for segmentation with a pyramid of poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)
        self.pools = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(8, 4, 1)) for n in (1, 2, 3))
        self.head = nn.Conv2d(20, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stage(self.stem(images).relu()).relu()
        pooled = [F.interpolate(pool(features), features.shape[2:]) for pool in self.pools]
        return self.head(torch.cat([features, *pooled], 1))


def test_a_pyramid_of_poolings_is_not_a_stage() -> None:
    assert sl.Tap(Pyramid().eval())(torch.rand(1, 3, 64, 96)).layers == [Layer("stage")]


SWIN = WINDOWS | {"depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 4], "image_size": 128}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
SHALLOW = PLAIN | {"image_size": 64, "out_indices": [0, 1, 2, 3]}  # takes features of its first two blocks
SEGMENTERS: dict[str, tuple[Callable[[Any], nn.Module], str, tuple[int, int], tuple[int, int]]] = {
    "Data2Vec": (
        lambda hf: hf.Data2VecVisionForSemanticSegmentation(hf.Data2VecVisionConfig(**SHALLOW, num_labels=7)),
        "data2vec_vision.encoder.layer.1.layernorm_before", (64, 64), (8, 8),
    ),
    "MobileNetV2": (
        lambda hf: hf.MobileNetV2ForSemanticSegmentation(hf.MobileNetV2Config(depth_multiplier=0.25, num_labels=7)),
        "mobilenet_v2.layer.15", (128, 192), (4, 6),
    ),
    "UperNet, ConvNeXt": (
        lambda hf: hf.UperNetForSemanticSegmentation(
            hf.UperNetConfig(
                backbone_config=hf.ConvNextConfig(**WIDTHS, **STAGES),
                num_labels=7, hidden_size=32, auxiliary_in_channels=32,
            )
        ),
        "backbone.encoder.stages.3", (128, 192), (4, 6),
    ),
    "UperNet, Swin": (
        lambda hf: hf.UperNetForSemanticSegmentation(
            hf.UperNetConfig(
                backbone_config=hf.SwinConfig(**SWIN, **STAGES),
                num_labels=7, hidden_size=32, auxiliary_in_channels=64,
            )
        ),
        "backbone.swin.encoder.layers.3.blocks.0", (128, 192), (4, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENTERS)
def test_models_of_hugging_face_for_segmentation_use_the_default_layer(name: str) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'sightline-xai[hf]'"
    )
    make, layer, size, grid = SEGMENTERS[name]
    torch.manual_seed(0)
    model, images = make(transformers).eval(), torch.randn(1, 3, *size)
    tap = sl.Tap(model)
    tapped = tap(images)
    assert [each.name for each in tap.layers] == [layer]
    assert tapped.activations[0].shape[2:] == grid
    first = sl.explain(model, images, targets=sl.targets.semantic(3))
    assert first.std() > 0.05
    with torch.no_grad():
        model(images)
    torch.testing.assert_close(sl.explain(model, images, targets=sl.targets.semantic(3)), first)
