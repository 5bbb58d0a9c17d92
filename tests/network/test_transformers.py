"""Hugging Face's image classifiers, which return an object with `.logits`: explained, trained with a guide, exported."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import sightline as sl
from networks import batch_of
from sightline.exporting import export_model

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'sightline-xai[hf]'"
)


def vit() -> tuple[nn.Module, sl.Layer]:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    name = next(n for n, _ in model.named_modules() if n.endswith(".1.layernorm_before"))
    return model, sl.Layer(name, "tokens", prefix=1)


def resnet() -> tuple[nn.Module, None]:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config), None


@pytest.mark.parametrize("make", [vit, resnet])
def test_a_transformer_is_explained_trained_and_exported(make, tmp_path: Path) -> None:
    model, layer = make()
    model.eval()
    batch = batch_of(side=32, dtype=torch.float32)
    maps = sl.explain(model, batch.images, layer=layer)
    assert maps.shape == (4, 32, 32)
    assert maps.amax((1, 2)).max() == 1

    # The map by hand: gradients of the logit, averaged over places, weigh the activations.
    kept: list[torch.Tensor] = []
    place = "resnet.encoder" if layer is None else layer.name

    def keep(module: nn.Module, arguments: object, output: object) -> None:
        tensor = output if isinstance(output, torch.Tensor) else output[0]  # type: ignore[index]
        kept.append(tensor)

    with model.get_submodule(place).register_forward_hook(keep):
        logits = model(batch.images).logits
    (slopes,) = torch.autograd.grad(logits.amax(1).sum(), kept[0])
    values = kept[0]
    if layer is not None:
        slopes, values = (t[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for t in (slopes, values))
    raw = (slopes.mean((2, 3), keepdim=True) * values).sum(1).relu().detach()
    expected = sl.explainers.resize_maps(raw, (32, 32))
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(maps, (expected - low) / (high - low).clamp_min(1e-12), rtol=1e-3, atol=1e-3)

    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5), layer=layer)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    objective.train()
    for _ in range(2):
        output = objective(batch)
        output["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert output["loss"].isfinite()

    spec = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (32, 32))
    formats = ["state-dict", "torch-export"]
    folder = export_model(model, tmp_path / "out", formats, input_spec=spec, classes=["a", "b", "c"])
    images = torch.randn(3, 3, 32, 32)
    other, _ = make()
    other.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        logits = model.eval()(images).logits
        torch.testing.assert_close(other.eval()(images).logits, logits)
        program = torch.export.load(folder / "model.pt2").module()
        torch.testing.assert_close(program(images), logits, rtol=1e-4, atol=1e-5)
    assert type(model).__name__ in json.loads((folder / "model.json").read_text())["load"]["state-dict"][1]


def test_a_transformer_is_tapped_before_its_last_attention() -> None:
    model, layer = vit()
    assert sl.Tap(model).layers == [layer]
