"""The default layer of every family of image classifiers: its place, its grid, its map."""

from typing import Any

import pytest
import torch

import sightline as sl
from families import examine
from networks import Wrapper
from sightline.errors import SightlineError
from zoo import HUGGING_FACE, PLAIN, TIMM, TORCHVISION, hugging_face_model, timm_model, torchvision_model

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'sightline-xai[timm]'")


def check(*model: Any) -> None:
    finding = examine(*model)
    assert finding.layer is not None, finding.refusal
    assert not finding.faults, finding


def check_timm(name: str) -> None:
    check(*timm_model(name))


FEW = (
    "gemma4_vit_167m", "ghostnet_050", "hiera_tiny_224", "pit_ti_224", "samvit_base_patch16_224",
    "vit_base_patch16_rpn_224", "vit_pwee_patch16_reg1_gap_256",
)  # fmt: skip


@pytest.mark.parametrize("name", FEW)
def test_default_layer_of_a_few_families_of_timm_gives_maps(name: str) -> None:
    check_timm(name)


@pytest.mark.parametrize("name", ["Dinov2WithRegisters", "PvtV2", "Swin"])
def test_default_layer_of_a_few_families_of_hugging_face_gives_maps(name: str) -> None:
    check_hugging_face(name)


@pytest.mark.parametrize("layer", ["net.blocks.3", "net.blocks.10.norm1", sl.Layer("net.blocks.2", "tokens")])
def test_a_layer_whose_tokens_are_in_another_order_is_rejected(layer: str | sl.Layer) -> None:
    with pytest.raises(SightlineError, match=r"another order than the places.*such as 'net.blocks.11'"):
        sl.Tap(Wrapper(timm_model("hiera_tiny_224")[0]), layer)


def test_a_layer_of_the_last_stage_keeps_the_order_of_the_places() -> None:
    model, size = timm_model("hiera_tiny_224")
    assert sl.Tap(model, "blocks.11.norm1")(torch.rand(1, 3, *size)).activations[0].shape == (1, 192, 4, 6)


def test_every_module_of_timm_has_a_model_here() -> None:
    classifiers = {module for module in timm.list_modules() if timm.list_models(module=module)}
    assert classifiers == {timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in TIMM}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TIMM if name not in FEW])
def test_default_layer_of_every_family_of_timm_gives_maps(name: str) -> None:
    check_timm(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_default_layer_of_every_family_of_torchvision_gives_maps(name: str) -> None:
    check(*torchvision_model(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_default_layer_of_every_family_of_hugging_face_gives_maps(name: str) -> None:
    check_hugging_face(name)


def check_hugging_face(name: str) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'sightline-xai[hf]'")
    finding = examine(*hugging_face_model(name))
    assert finding.layer is not None, finding.refusal
    assert not finding.faults, finding


class Pooled(torch.nn.Module):
    """A linear classifier of the pooled output of a backbone."""

    def __init__(self, backbone: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, torch.nn.Linear(width, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images).pooler_output)


@pytest.mark.parametrize("kind", ["ViT", "ConvNext"])
def test_dinov3_of_hugging_face_is_a_backbone_with_registers(kind: str) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'sightline-xai[hf]'"
    )
    small = {
        "ViT": PLAIN | {"image_size": 64, "num_register_tokens": 4},
        "ConvNext": {"hidden_sizes": [8, 16, 32, 64], "depths": [1] * 4},
    }
    config = getattr(transformers, f"DINOv3{kind}Config")(**small[kind])
    model = Pooled(getattr(transformers, f"DINOv3{kind}Model")(config), PLAIN["hidden_size"] if kind == "ViT" else 64)
    expected = {
        "ViT": sl.Layer("backbone.model.layer.3.norm1", "tokens", 5),
        "ConvNext": sl.Layer("backbone.model.stages.3"),
    }
    size = (32, 48) if kind == "ViT" else (128, 192)
    tap = sl.Tap(model.eval())
    assert tap.layers == [expected[kind]]
    assert tap(torch.rand(1, 3, *size)).activations[0].shape[-2:] == (4, 6)
    finding = examine(model, size)
    assert not finding.faults, finding
