"""The attention branch network: both cross-entropies and the attention written out, its place and its state."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import AttentionBranch, create_guide
from sightline.models.attention_branch import AttentionBranchModule


def test_attention_branch_logits_and_losses_follow_the_equations() -> None:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of()
    objective = sl.Objective(model, AttentionBranch(weight=0.7, layer="features.1"))
    branch = model.features[1].attention_branch
    output = objective(batch)
    features = F.softplus(model.features[0](batch.images))

    def normalised(values: torch.Tensor) -> torch.Tensor:  # by the batch's own statistics
        mean, var = values.mean((0, 2, 3), keepdim=True), values.var((0, 2, 3), keepdim=True, unbiased=False)
        return (values - mean) / (var + 1e-5).sqrt()

    maps = normalised(F.conv2d(features, branch.features.weight, padding=1)).relu()
    maps = normalised(F.conv2d(maps, branch.classes.weight)).relu()
    attention = normalised(F.conv2d(maps, branch.attention.weight, padding=1)).sigmoid()
    own = torch.einsum("bkhw,jk->bj", maps, branch.head.weight[:, :, 0, 0]) / 64 + branch.head.bias
    logits = model.classifier(model.head(model.features[2:](features * (1 + attention))))
    torch.testing.assert_close(output["logits"], logits)
    first = F.cross_entropy(logits, batch.labels)
    second = F.cross_entropy(own, batch.labels)
    torch.testing.assert_close(output["attention_branch"], second.detach())
    torch.testing.assert_close(output["loss"], first + 0.7 * second)


def test_both_losses_reach_the_model_and_the_branch() -> None:
    torch.manual_seed(4)
    for task, weight in ((1.0, 0.0), (0.0, 1.0)):
        model = TinyCNN().double()
        objective = sl.Objective(model, AttentionBranch(weight=weight, layer="features.1"), task_weight=task)
        objective(batch_of())["loss"].backward()
        branch = model.features[1].attention_branch
        assert model.features[0].weight.grad.abs().max() > 0
        assert branch.features.weight.grad.abs().max() > 0
        assert bool(branch.head.weight.grad.abs().max() > 0) is bool(weight)
        assert bool(branch.attention.weight.grad.abs().max() > 0) is bool(task)


def test_the_explainer_shows_the_attention() -> None:
    torch.manual_seed(4)
    model, batch = sl.load_model("sightline/lenet5", classes=3)[0], batch_of(side=32, dtype=torch.float32)
    sl.Objective(model, AttentionBranch(layer="relu2"))
    model.eval()
    features = nn.Sequential(*list(model.children())[:5])(batch.images)  # the hook on relu2 has applied it
    heard = []
    model.relu2.attention_branch.register_forward_hook(lambda module, args, output: heard.append(output[0]))
    maps = sl.explain(model, batch.images, "attention_branch")
    assert heard[0].shape == (4, 10, 10)
    assert features.shape == (4, 16, 10, 10)
    resized = F.interpolate(heard[0][:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    low, high = resized.amin((1, 2), keepdim=True), resized.amax((1, 2), keepdim=True)
    torch.testing.assert_close(maps, (resized - low) / (high - low))


def test_the_model_keeps_its_names_head_and_layer_and_the_branch_is_kept() -> None:
    plain, model = (sl.load_model("timm/resnet18", classes=3)[0] for _ in range(2))
    objective = sl.Objective(model, AttentionBranch())
    added = set(model.state_dict()) - set(plain.state_dict())
    assert all(name.startswith("layer3.1.attention_branch.") for name in added)
    assert sl.Tap(model).layers == sl.Tap(plain).layers
    branch = objective.guides[0].branch
    assert isinstance(branch, AttentionBranchModule)
    assert sl.Objective(model, AttentionBranch()).guides[0].branch is branch
    assert len(model.layer3[1]._forward_hooks) == 1


def test_attention_branch_invalid_options_and_missing_branch_raise() -> None:
    with pytest.raises(SightlineError, match="weight is -1"):
        create_guide("attention_branch", weight=-1.0)
    with pytest.raises(SightlineError, match="gives no feature map"):
        sl.Objective(TinyCNN(), AttentionBranch(layer="head"))
    for name in ("attention_branch", "impactx"):
        with pytest.raises(sl.NotDefinedError):
            sl.explain(TinyCNN(), torch.rand(1, 3, 8, 8), name)
