"""The layout of a layer's output: read as declared, and refused where an inferred one contradicts the image."""

import warnings
from math import ceil

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.network.layout import Evidence, Layer, to_spatial


class ChannelsLast(nn.Module):
    """A stage that keeps its channels in the last dimension, between convolutions that do not."""

    class Stage(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.fc = nn.Linear(channels, channels)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    def __init__(self, channels: int = 24, side: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, side, side)
        self.stage = self.Stage(channels)
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(self.embed(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
def test_channels_last_are_not_read_as_channels_first(size: tuple[int, int]) -> None:
    model, images = ChannelsLast().eval(), torch.rand(1, 3, *size)
    with pytest.raises(
        SightlineError, match=r"as channels_last, \d+ x \d+; .* sightline.Layer\('stage', 'channels_last'\)"
    ):
        sl.explain(model, images, layer="stage")
    changed = images.clone()
    changed[:, :, 40:48, 16:24] += 1
    tap = sl.Tap(model, Layer("stage", "channels_last"))
    difference = (tap(changed).activations[0] - tap(images).activations[0]).abs().sum(1)[0]
    assert difference.shape == (size[0] // 8, size[1] // 8)
    assert difference.nonzero().tolist() == [[5, 2]]


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
def test_a_declared_layout_that_the_image_contradicts_warns(size: tuple[int, int]) -> None:
    grid = (size[0] // 8, size[1] // 8)
    last, first = ChannelsLast(), nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.AdaptiveAvgPool2d(1))
    tapped = sl.Tap(last, Layer("stage"))(torch.rand(1, 3, *size))
    with pytest.warns(UserWarning, match=r"sightline.Layer\('stage', 'channels_last'\)"):
        assert tapped.activations[0].shape == (1, grid[0], grid[1], 24)  # as declared
    tapped = sl.Tap(first, Layer("0", "channels_last"))(torch.rand(1, 3, *size))
    with pytest.warns(UserWarning, match=r"sightline.Layer\('0', 'channels_first'\)"):
        assert tapped.activations[0].shape == (1, grid[1], 24, grid[0])


@pytest.mark.parametrize(
    ("stride", "size"), [((8, 1), (32, 128)), ((1, 8), (128, 32)), ((32, 1), (32, 100)), ((8, 8), (64, 96))]
)
def test_a_declared_layout_that_nothing_contradicts_is_silent(stride: tuple[int, int], size: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 24, 3, stride, 1), nn.Conv2d(24, 3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        activations = sl.Tap(model, Layer("0"))(torch.rand(1, 3, *size)).activations[0]
    assert activations.shape[1] == 24


def test_a_declared_layout_that_the_model_contradicts_is_rejected() -> None:
    timm = pytest.importorskip("timm")
    model, images = timm.create_model("test_convnext").eval(), torch.rand(1, 3, 160, 160)
    name = sl.Tap(model).layers[0].name
    for inside, layer in ((model, name), (nn.Sequential(model), f"0.{name}")):
        with pytest.raises(SightlineError, match=rf"sightline.Layer\('{layer}', 'channels_first'\)"):
            sl.explain(inside, images, layer=Layer(layer, "channels_last"))
        assert torch.equal(sl.explain(inside, images, layer=Layer(layer)), sl.explain(inside, images, layer=layer))


def test_channels_that_the_model_states_decide_where_the_image_does_not() -> None:
    model, images = ChannelsLast(channels=8), torch.rand(1, 3, 64, 64)  # 8 x 8 places of 8 channels, or 7 x 8 of them
    assert sl.Tap(model, "stage")(images).activations[0].shape == (1, 8, 8, 8)
    model = ChannelsLast(channels=9)  # as a feature map, 8 places in one direction and 9 in the other: nearly a square
    assert sl.Tap(model, "stage")(images).activations[0].shape == (1, 8, 8, 9)
    model.feature_info = [{"module": "stage", "num_chs": 9}]  # as timm's models have it
    with pytest.raises(SightlineError, match=r"sightline.Layer\('stage', 'channels_last'\)"):
        sl.Tap(model, "stage")(images).activations  # noqa: B018
    with pytest.raises(SightlineError, match=r"sightline.Layer\('0.stage', 'channels_last'\)"):
        sl.Tap(nn.Sequential(model), "0.stage")(images).activations  # noqa: B018


def test_channels_first_are_not_read_as_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(3, 24, 1), nn.LayerNorm(16), nn.Conv2d(24, 3, 1))  # a norm over columns
    with pytest.raises(SightlineError, match=r"sightline.Layer\('1', 'channels_first'\)"):
        sl.Tap(model, "1")(torch.rand(1, 3, 16, 16)).activations  # noqa: B018


@pytest.mark.parametrize("stride", [(1, 8), (8, 1), (8, 8)])
def test_strides_that_differ_are_no_contradiction(stride: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 24, 3, stride, 1), nn.ReLU()), nn.Conv2d(24, 3, 1))
    assert sl.Tap(model, "0")(torch.rand(1, 3, 32, 128)).activations[0].shape[1] == 24


# ---- grids of tokens ----


@pytest.mark.parametrize("size", [(129, 255), (33, 80), (64, 64), (100, 130), (31, 200), (65, 65)])
def test_the_grid_of_a_padded_image_is_that_of_its_patch_embedding(size: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm")
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "patch_size": 32, "depth": 1, "embed_dim": 12}
    model = timm.create_model("vit_tiny_patch16_224", **options).eval()
    images = torch.rand(1, 3, *size)
    expected = (ceil(size[0] / 32), ceil(size[1] / 32))
    assert sl.Tap(model)(images).activations[0].shape[-2:] == expected
    assert sl.Tap(model, Layer("blocks.0.norm2", "tokens", 1))(images).activations[0].shape[-2:] == expected
    row, column = expected[0] - 1, expected[1] // 2
    changed = images.clone()
    changed[:, :, row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32] += 1
    before, after = (sl.Tap(model)(x).activations[0] for x in (images, changed))
    assert (after - before).abs().sum(1)[0].nonzero().tolist() == [[row, column]]


def test_patches_tell_every_grid() -> None:
    for patch in [(4, 4), (16, 16), (32, 32), (16, 8)]:
        layer = Layer("x", "tokens", evidence=Evidence(patches=(patch,)))
        for height in range(32, 200, 7):
            for width in range(32, 200, 11):
                for rounded in (lambda n, p: n // p, lambda n, p: -(-n // p)):
                    grid = (rounded(height, patch[0]), rounded(width, patch[1]))
                    tokens = torch.empty(1, grid[0] * grid[1], 2, device="meta")
                    assert to_spatial(layer, tokens, (height, width)).shape == (1, 2, *grid)


def test_without_patches_strides_of_whole_pixels_tell_the_grid() -> None:
    for size, grid in [((129, 255), (5, 8)), ((224, 224), (14, 14)), ((64, 128), (2, 4)), ((224, 336), (14, 21))]:
        tokens = torch.empty(1, grid[0] * grid[1] + 1, 2, device="meta")
        assert to_spatial(Layer("x", "tokens", 1), tokens, size).shape == (1, 2, *grid)
    with pytest.raises(SightlineError, match="has 12 tokens after 0 prefix tokens, which do not form a grid"):
        to_spatial(Layer("x", "tokens"), torch.empty(1, 12, 2), (64, 64))
