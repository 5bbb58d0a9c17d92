"""The attention gate: its loss, its place in the model, and the way it ships with it."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from differences import check_gradients
from safetensors.torch import save_file
from torch import nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.guides.attention_gate import AttentionGate, attention_loss
from sightline.models.gates import insert_gate, restore_gates
from sightline.network.tap import Tap


def setting(size: int = 4) -> tuple[TinyCNN, sl.Batch]:
    torch.manual_seed(4)
    return TinyCNN().double(), batch_of(size)


def opened(model: nn.Module) -> None:
    """Give the gate a view of its own, which differs from place to place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention_gate.weight" in name:
                parameter.copy_(torch.linspace(-2, 3, parameter.numel()))


# ---- the loss ----


def test_the_loss_is_the_binary_cross_entropy_of_what_counts() -> None:
    logits, masks = torch.randn(2, 4, 4), torch.rand(2, 4, 4)
    expected = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    torch.testing.assert_close(attention_loss(logits, masks, 1 - masks), expected.mean((1, 2)))
    counts = torch.zeros(2, 4, 4)
    counts[0, :2] = 1
    ours = attention_loss(logits, masks * counts, (1 - masks) * counts)
    torch.testing.assert_close(ours, torch.stack([expected[0, :2].mean(), torch.tensor(0.0)]))


def test_attention_gate_logits_and_loss_follow_the_equations() -> None:
    model, batch = setting()
    objective = sl.Objective(model, AttentionGate(layer="features.1"))
    opened(model)
    gate = model.features[1].attention_gate
    features = F.softplus(model.features[0](batch.images))
    attention = (features * gate.weight[0, :, None, None]).sum(1) + gate.bias
    after = model.features[3](model.features[2](features * attention.sigmoid()[:, None]))
    output = objective(batch)
    torch.testing.assert_close(output["logits"], model.classifier(model.head(after)))
    expected = F.binary_cross_entropy_with_logits(attention, batch.masks.to(attention.dtype))
    torch.testing.assert_close(output["attention_gate"], expected.detach())


def test_masks_are_reduced_to_the_features_by_area() -> None:
    torch.manual_seed(4)
    model, batch = sl.load_model("sightline/small_cnn", classes=3)[0], batch_of(side=32, dtype=torch.float32)
    output = sl.Objective(model, AttentionGate())(batch)  # all logits are 2
    share = F.avg_pool2d(batch.masks[:, None].float(), 8)
    expected = share * F.softplus(torch.tensor(-2.0)) + (1 - share) * F.softplus(torch.tensor(2.0))
    torch.testing.assert_close(output["attention_gate"], expected.mean())


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_of_every_parameter_match_finite_differences(detach: bool) -> None:
    model, batch = setting(size=2)
    objective = sl.Objective(model, AttentionGate(layer="features.1", detach=detach), task_weight=float(not detach))
    opened(model)
    seen = check_gradients(objective, batch)
    assert {"features.0.weight", "features.1.attention_gate.weight", "features.1.attention_gate.bias"} <= seen


def test_detached_the_masks_alone_train_the_attention() -> None:
    for detach in (False, True):
        model, batch = setting()
        objective = sl.Objective(model, AttentionGate(layer="features.1", detach=detach, weight=0.0))
        opened(model)
        objective(batch)["loss"].backward()
        gate = model.features[1].attention_gate
        assert bool(gate.weight.grad.any()) is not detach
        assert model.features[0].weight.grad.any()  # the features' own path stays open


def test_images_without_an_object_weigh_nothing_and_are_counted() -> None:
    model, batch = setting()
    guide = AttentionGate(layer="features.1")
    objective = sl.Objective(model, guide)
    opened(model)
    first = objective(sl.Batch(batch.images[:2], batch.labels[:2], masks=batch.masks[:2]))
    batch.masks[3] = 0
    batch.has_mask = torch.tensor([True, True, False, True])
    mixed = objective(batch)
    torch.testing.assert_close(mixed["attention_gate"], first["attention_gate"])
    assert int(mixed["n/attention_gate/unannotated"]) == 2


def test_attention_gate_works_with_chunks_of_views_and_accumulation() -> None:
    model, batch = setting()
    guides = sl.SegmentOverlap(views=4) + AttentionGate(layer="features.1")

    def found(objective: sl.Objective, *parts: sl.Batch) -> torch.Tensor:
        objective.zero_grad()
        counts = objective.counts(parts) if len(parts) > 1 else None
        for part in parts:
            objective(part, counts=counts)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in objective.parameters()])

    objective = sl.Objective(model, guides)
    opened(model)
    whole = found(objective, batch)
    chunked = sl.Objective(model, guides, view_chunk=1)
    for _ in range(2):  # what backward computes again must not be heard in the next step
        torch.testing.assert_close(found(chunked, batch), whole)
    parts = [sl.Batch(batch.images[s], batch.labels[s], masks=batch.masks[s]) for s in (slice(1), slice(1, 4))]
    torch.testing.assert_close(found(objective, *parts), whole)


# ---- its place in the model ----


def test_the_model_keeps_its_names_and_its_class() -> None:
    model = torchvision.models.resnet18(num_classes=3)
    names = set(model.state_dict())
    objective = sl.Objective(model, AttentionGate())
    assert type(model) is torchvision.models.ResNet
    added = {"layer3.1.attention_gate.weight", "layer3.1.attention_gate.bias"}
    assert set(objective.unwrap_model().state_dict()) == names | added
    assert len(list(objective.parameters())) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision/resnet18", "layer3.1"),
        ("timm/resnet18", "layer3.1"),
        ("timm/tf_efficientnet_lite0", "blocks.4.2"),
        ("torchvision/mobilenet_v2", "features.13"),
        ("torchvision/vgg11", "features.19"),
        ("sightline/small_cnn", "blocks.2"),
    ],
)
def test_the_default_is_the_last_stage_at_a_sixteenth(name: str, layer: str) -> None:
    model = sl.load_model(name, classes=2)[0]
    found, gate = insert_gate(model)
    assert found == layer
    assert model.get_submodule(f"{found}.attention_gate") is gate


def test_a_gate_that_is_there_is_kept() -> None:
    model, _ = setting()
    first = sl.Objective(model, AttentionGate(layer="features.1")).guides[0].gate
    second = sl.Objective(model, AttentionGate(layer="features.1")).guides[0].gate
    assert first is second
    assert len(model.features[1]._forward_hooks) == 1


def test_channels_last_features_are_gated_per_position() -> None:
    model = torchvision.models.swin_t(num_classes=2)
    name, gate = insert_gate(model, "features.1")
    assert name == "features.1.1"
    images, seen = torch.rand(1, 3, 64, 64), []
    gate.register_forward_hook(lambda module, args, logits: seen.append(logits))
    before = model.eval()(images)
    assert seen[0].shape == (1, 16, 16, 1)
    with torch.no_grad():
        gate.bias.fill_(-100.0)
    assert not torch.allclose(model(images), before)


@pytest.mark.parametrize(
    ("layer", "message"),
    [("head", "gives no feature map"), ("feature", "did you mean 'features"), ("classifier", "gives no feature map")],
)
def test_a_layer_without_a_map_raises(layer: str, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.Objective(setting()[0], AttentionGate(layer=layer))
    with pytest.raises(SightlineError, match="no stage from which the place of an attention gate"):
        insert_gate(torchvision.models.VisionTransformer(224, 112, 1, 1, 8, 8, num_classes=2))


def test_attention_gate_invalid_options_raise() -> None:
    with pytest.raises(SightlineError, match="weight is -1"):
        create_guide("attention_gate", weight=-1.0)
    with pytest.raises(SightlineError, match="did you mean 'masks'"):
        create_guide("attention_gate", region="mask")


# ---- the way it ships ----


def test_copies_and_pickles_apply_their_own_gate() -> None:
    model, batch = setting()
    objective = sl.Objective(model, AttentionGate(layer="features.1"))
    opened(model)
    expected = model(batch.images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(objective).model):
        assert torch.equal(other(batch.images), expected)
        with torch.no_grad():
            other.features[1].attention_gate.bias.fill_(-100.0)
        assert not torch.allclose(other(batch.images), expected)
        assert torch.equal(model(batch.images), expected)
    twin = copy.deepcopy(objective)
    torch.testing.assert_close(twin(batch)["loss"], objective(batch)["loss"])


def test_the_tail_behind_it_and_the_tail_around_it_are_cut_out_with_it() -> None:
    model = torchvision.models.resnet18(num_classes=3).eval()
    insert_gate(model)
    opened(model)
    images = torch.rand(1, 3, 64, 64)
    for layer in ("layer4", "layer3.1.conv1"):
        tail = Tap(model, layer).tail(images)
        assert tail.is_cut
        torch.testing.assert_close(tail(tail.raw), model(images))


def test_load_model_puts_it_back(tmp_path: Path) -> None:
    model = sl.load_model("torchvision/resnet18", classes=3)[0].eval()
    insert_gate(model)
    opened(model)
    save_file(model.state_dict(), tmp_path / "gated.safetensors")
    again = sl.load_model("torchvision/resnet18", tmp_path / "gated.safetensors")[0].eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    plain = torchvision.models.resnet18(num_classes=3)
    restore_gates(plain, {"elsewhere.attention_gate.weight": torch.zeros(1, 2)})  # left for load_weights to refuse
    assert not any("attention_gate" in name for name in plain.state_dict())
