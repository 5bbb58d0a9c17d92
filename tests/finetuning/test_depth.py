"""The layers of a model in order of depth, against what the architectures say."""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.finetuning.depth import parameters_by_depth
from sightline.network.branch import Branch


def depths(model: nn.Module) -> dict[str, int]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameters_by_depth(model)
    found = {names[parameter]: number for number, group in enumerate(groups) for parameter in group}
    assert len(found) == len(names) == sum(map(len, groups))
    return found


def test_a_residual_network_has_a_layer_a_block() -> None:
    blocks = [f"layer{stage}.{block}." for stage in (1, 2, 3, 4) for block in (0, 1)]
    for name, depth in depths(torchvision.models.resnet18(num_classes=3)).items():
        expected = {"conv1": 0, "bn1": 0, "fc": 9}
        block = next((number for number, prefix in enumerate(blocks, start=1) if name.startswith(prefix)), None)
        assert depth == (expected[name.split(".")[0]] if block is None else block), name


def test_an_efficientnet_of_timm_has_a_layer_a_block() -> None:
    counts = [1, 2, 2, 3, 3, 4, 1]  # blocks of each stage of EfficientNet-Lite0
    for name, depth in depths(timm.create_model("tf_efficientnet_lite0", num_classes=3)).items():
        if found := re.match(r"blocks\.(\d)\.(\d)\.", name):
            assert depth == 1 + sum(counts[: int(found[1])]) + int(found[2]), name
        else:
            assert depth == {"conv_stem": 0, "bn1": 0, "conv_head": 17, "bn2": 17, "classifier": 18}[name.split(".")[0]]


def test_a_transformer_has_its_embeddings_first_as_in_beit() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=3)
    for name, depth in depths(model).items():
        if found := re.match(r"blocks\.(\d)\.", name):
            assert depth == int(found[1]) + 1, name
        else:  # the last norm joins the layer before it
            expected = {"cls_token": 0, "pos_embed": 0, "patch_embed": 0, "norm": 3, "head": 4}
            assert depth == expected[name.split(".")[0]], name


def test_a_model_of_an_unusual_size_is_run_on_an_image_of_that_size() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=80, depth=2, num_classes=3)
    with pytest.raises(SightlineError, match="no blank image"):
        parameters_by_depth(model)
    groups = parameters_by_depth(model, torch.zeros(1, 3, 80, 80))
    assert [model.blocks[i].attn.qkv.weight in set(groups[i + 1]) for i in (0, 1)] == [True, True]
    assert len(groups) == 4


def test_a_network_of_no_library_follows_its_execution_and_a_wrapper_changes_nothing() -> None:
    lenet, _ = sl.load_model("sightline/lenet5", classes=2)
    assert depths(lenet)["conv1.weight"] == 0
    assert [depths(lenet)[f"{name}.bias"] for name in ("conv2", "fc1", "fc2", "head")] == [1, 2, 3, 4]
    wrapped = depths(nn.Sequential(nn.Identity(), lenet))
    assert wrapped == {f"1.{name}": depth for name, depth in depths(lenet).items()}

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.second = nn.Conv2d(4, 4, 3)
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, images):
            return self.last(self.second(self.first(images)).mean((2, 3)))

    expected = {"first": 0, "second": 1, "last": 2}
    assert {name.split(".")[0]: depth for name, depth in depths(Backwards()).items()} == expected


def test_modules_that_a_guide_adds_count_as_the_classifier() -> None:
    class Added(Branch):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

    model, _ = sl.load_model("sightline/small_cnn", classes=2)
    plain = depths(model)
    model.add_module("added", Added())
    assert depths(model) == plain | {"added.conv.weight": plain["head.bias"], "added.conv.bias": plain["head.bias"]}


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "regnet_x_400mf"])
def test_containers_of_other_kinds_hold_blocks_too(name: str) -> None:
    found = depths(torchvision.models.get_model(name, num_classes=3))
    assert len(set(found.values())) == {"mobilenet_v2": 20, "densenet121": 63, "regnet_x_400mf": 24}[name]
