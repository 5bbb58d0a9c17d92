"""The two-branch model: its parts written out, its place beside a model, and the way it ships with it."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import NotDefinedError, SightlineError
from sightline.exporting import export_model
from sightline.models.latent_explanation import CODE, Decoder
from sightline.models.two_branch import SelfExplaining, TwoBranch, attach_two_branch
from sightline.network.head import head_name


def lenet(features: bool = False) -> nn.Module:
    torch.manual_seed(3)
    model = sl.load_model("sightline/lenet5", classes=4)[0]
    attach_two_branch(model, 32, features)
    return model.eval()


# ---- the decoder ----


@pytest.mark.parametrize(("size", "side", "blocks"), [(32, 4, 3), (96, 6, 4), (224, 7, 5), (8, 4, 1), (60, 8, 3)])
def test_decoders_follow_the_size_of_the_input(size: int, side: int, blocks: int) -> None:
    decoder = Decoder(size, code=2)
    assert decoder.grid.out_features == 8 * side**2
    assert len(decoder.blocks) == blocks
    for block in decoder.blocks:
        assert [type(layer).__name__ for layer in block if layer is not None] == (
            ["Conv2d", "ReLU", "Conv2d", "ReLU", "Upsample"]
        )
    with torch.no_grad():
        assert decoder(torch.rand(2, 2)).shape == (2, size, size)


def test_decoder_output_follows_its_layers() -> None:
    decoder = Decoder(16, code=3).double()  # two blocks
    code = torch.rand(2, 3, dtype=torch.float64)
    weights = dict(decoder.named_parameters())
    maps = (code @ weights["grid.weight"].T + weights["grid.bias"]).reshape(2, 8, 4, 4)
    for block in range(2):
        for layer in (0, 2):
            name = f"blocks.{block}.{layer}"
            maps = F.conv2d(maps, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).clamp_min(0)
        maps = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = F.conv2d(maps, weights["output.weight"], weights["output.bias"], padding=1)
    torch.testing.assert_close(decoder(code), maps[:, 0])
    assert maps.min() < 0 or maps.max() < 0 or not torch.equal(maps, maps.relu())  # linear at the end: signs are kept


def test_a_map_that_no_doubling_reaches_is_resized() -> None:
    decoder = Decoder(60, code=2)
    heard = []
    decoder.output.register_forward_hook(lambda module, args, maps: heard.append(maps))
    with torch.no_grad():
        maps = decoder(torch.rand(1, 2))
    assert heard[0].shape[-1] == 64
    torch.testing.assert_close(maps, F.interpolate(heard[0], (60, 60), mode="bilinear")[:, 0])


# ---- the whole ----


@pytest.mark.parametrize("features", [False, True])
def test_two_branch_logits_follow_the_equations(features: bool) -> None:
    torch.manual_seed(0)
    model = TinyCNN().double()
    before = copy.deepcopy(model)
    branch = attach_two_branch(model, 8, features)
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    pooled = before.features(images).mean((2, 3))
    new = branch.lep.trunk.head[2]
    assert (new.in_features, new.out_features) == (4, CODE)
    code = torch.sigmoid(pooled @ new.weight.T + new.bias)
    hidden = torch.tanh(before.head[2](pooled))
    seen = hidden if features else before.classifier(hidden)
    expected = torch.cat([seen, code], 1) @ branch.classifier.weight.T + branch.classifier.bias
    torch.testing.assert_close(model(images), expected)
    explained = SelfExplaining(model)(images)
    torch.testing.assert_close(explained.logits, expected)
    torch.testing.assert_close(explained.maps, branch.decoder(code))


def test_the_latent_explanation_predictor_is_a_copy() -> None:
    model = TinyCNN()
    branch = attach_two_branch(model, 8)
    mine, copied = model.features[0].weight, branch.lep.trunk.features[0].weight
    assert torch.equal(mine, copied)
    assert mine is not copied
    assert not any(parameter is other for parameter in branch.parameters() for other in own_parameters(model))


def own_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if not name.startswith("two_branch")]


def test_the_model_keeps_its_class_names_layer_and_head() -> None:
    plain = sl.load_model("sightline/lenet5", classes=4)[0]
    model = lenet()
    assert type(model) is type(plain)
    assert [name for name in model.state_dict() if not name.startswith("two_branch.")] == list(plain.state_dict())
    assert head_name(model) == head_name(plain)
    assert sl.Tap(model).layers == sl.Tap(plain).layers


def test_a_second_branch_is_the_first_one_or_rejected() -> None:
    model = lenet()
    assert attach_two_branch(model, 32) is model.get_submodule("two_branch")
    assert len(model._forward_hooks) == 1
    with pytest.raises(SightlineError, match="a second branch already, of size 32"):
        attach_two_branch(model, 96)


class Pooled(TinyCNN):
    """Ends in no fully-connected layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3))


class Scaled(TinyCNN):
    """Does something after its fully-connected layers."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def test_models_that_cannot_have_a_branch() -> None:
    with pytest.raises(SightlineError, match="does not end in fully-connected layers"):
        attach_two_branch(Pooled(), 8)
    with pytest.raises(SightlineError, match="does more after its layer"):
        attach_two_branch(Scaled(), 8)
    with pytest.raises(SightlineError, match=r"bare nn\.Sequential"):
        attach_two_branch(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)), 8)
    with pytest.raises(SightlineError, match="size is 7; expected a whole number >= 8"):
        Decoder(7)
    with pytest.raises(NotDefinedError, match="guide impactx"):
        SelfExplaining(TinyCNN())


# ---- models by name ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "closing"),
    [
        ("timm/mobilenetv1_100", 32, "classifier"),
        ("timm/tf_efficientnet_b2.ns_jft_in1k", 32, "classifier"),
        ("torchvision/mobilenet_v2", 32, "classifier.1"),
        ("torchvision/efficientnet_b2", 32, "classifier.1"),
        ("torchvision/vgg11", 32, "classifier.0"),
    ],
)
def test_models_by_name_learn_and_explain(name: str, size: int, closing: str) -> None:
    model, spec = sl.load_model(name, None, 3, size)
    objective = sl.Objective(model, sl.guides.IMPACTX(size=size, freeze=False), input_spec=spec)
    branch = model.get_submodule("two_branch")
    assert isinstance(branch, TwoBranch)
    assert branch.lep.trunk.get_submodule(closing).out_features == CODE
    batch = sl.Batch(torch.rand(2, 3, size, size), torch.tensor([0, 2]), maps=torch.randn(2, size, size))
    objective(batch)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in branch.parameters())
    maps = sl.explain(model, batch.images, "impactx", input_spec=spec)
    assert maps.shape == (2, size, size)


# ---- the way it ships ----


@pytest.mark.parametrize("features", [False, True])
def test_saved_weights_bring_the_branch_back(tmp_path: Path, features: bool) -> None:
    model, images = lenet(features), torch.rand(2, 3, 32, 32)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = sl.load_model("sightline/lenet5", tmp_path / "model.safetensors")[0].eval()
    for ours, theirs in zip(SelfExplaining(model)(images), SelfExplaining(loaded)(images)):
        torch.testing.assert_close(ours, theirs)


def test_saved_weights_bring_an_attention_branch_back_too(tmp_path: Path) -> None:
    model = sl.load_model("sightline/lenet5", classes=4)[0]
    sl.Objective(model, sl.guides.AttentionBranch(layer="relu2"))
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = sl.load_model("sightline/lenet5", tmp_path / "model.safetensors")[0].eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), model(images))
    torch.testing.assert_close(
        sl.explain(loaded, images, "attention_branch"), sl.explain(model, images, "attention_branch")
    )


def test_copies_and_pickles_apply_their_own_branch() -> None:
    model, images = lenet(), torch.rand(2, 3, 32, 32)
    before = model(images)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(images), before)
        with torch.no_grad():
            twin.get_submodule("two_branch.classifier").bias.add_(1.0)
        torch.testing.assert_close(twin(images), before + 1)
        torch.testing.assert_close(model(images), before)


def test_torch_export_gives_logits_and_map() -> None:
    model, images = SelfExplaining(lenet()).eval(), torch.rand(5, 3, 32, 32)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},), strict=False)
    for ours, theirs in zip(program.module()(images), model(images)):
        torch.testing.assert_close(ours, theirs)


def test_onnx_gives_logits_and_map(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX needs the extra 'export'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra 'export'")
    model, images = SelfExplaining(lenet()).eval(), torch.rand(5, 3, 32, 32)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},), strict=False)
    torch.onnx.export(program, dynamo=True, verbose=False, output_names=["logits", "maps"]).save(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    for found, expected in zip(session.run(["logits", "maps"], {name: images.numpy()}), model(images)):
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_export_model_and_load_model_agree(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX needs the extra 'export'")
    plain, spec = sl.load_model("sightline/lenet5", classes=4)
    attach_two_branch(plain, 32)
    folder = export_model(plain, tmp_path / "out", input_spec=spec, classes=list("abcd"), name="sightline/lenet5")
    loaded = sl.load_model("sightline/lenet5", folder / "model.safetensors", 4)[0].eval()
    images = torch.rand(3, 3, 32, 32)
    program = torch.export.load(folder / "model.pt2").module()
    logits, _ = program(images)
    torch.testing.assert_close(logits, loaded(images))
