"""Attention pooling whose attention reads a layer before the last feature map."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import sightline as sl
from networks import batch_of
from sightline.errors import SightlineError
from sightline.models.gates import insert_pooling_gate, pooled_module, pooling_gate_of
from sightline.network.tap import Tap


class TwoStages(nn.Module):
    """A stage of 8 x 8 places and one of 4 x 4 for images of 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus())
        self.middle = nn.Conv2d(4, 6, 1)
        self.last = nn.Sequential(nn.Conv2d(6, 5, 3, 2, 1), nn.Softplus())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.middle(self.fine(x))).mean((2, 3)))


def pooled() -> tuple[TwoStages, nn.Module]:
    torch.manual_seed(3)
    model = TwoStages().double().eval()
    _, gate = insert_pooling_gate(model, "fine")
    with torch.no_grad():
        gate.weight.copy_(torch.linspace(-3, 4, 4))
        gate.bias.fill_(0.5)
    return model, gate


def images_of(count: int = 4) -> Tensor:
    return batch_of(count, side=16).images


def test_earlier_attention_logits_follow_the_equation() -> None:
    model, gate = pooled()
    images = images_of()
    plain = TwoStages().double()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "attention" not in key})
    fine = plain.fine(images)
    squares = (torch.einsum("bchw,c->bhw", fine, gate.weight[0]) + gate.bias).sigmoid() ** 2
    weights = squares.unfold(1, 2, 2).unfold(2, 2, 2).sum((3, 4))  # what falls into each place of the last feature map
    last = plain.last(plain.middle(fine))
    means = torch.einsum("bchw,bhw->bc", last, weights / weights.sum((1, 2), keepdim=True))
    torch.testing.assert_close(model(images), plain.head(means))


def test_a_new_one_changes_nothing_and_a_closed_one_stays_finite() -> None:
    torch.manual_seed(0)
    model, images = TwoStages().double(), images_of()
    before = model(images)
    place, gate = insert_pooling_gate(model, "fine")
    assert (place, gate) == ("last.1", model.fine[1].attention_pooling)
    torch.testing.assert_close(model(images), before)
    with torch.no_grad():
        gate.bias.fill_(-1e4)
    torch.testing.assert_close(model(images), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert copy.deepcopy(model).float()(images.float()).isfinite().all()


def test_gradients_reach_the_attention_by_the_logits() -> None:
    model, gate = pooled()
    images = images_of(2)

    def loss(weight: Tensor, bias: Tensor) -> Tensor:
        replaced = {"fine.1.attention_pooling.weight": weight, "fine.1.attention_pooling.bias": bias}
        return torch.func.functional_call(model, replaced, (images,)).square().sum()

    assert torch.autograd.gradcheck(loss, (gate.weight, gate.bias))
    gate.detached = True
    model(images).sum().backward()
    assert gate.weight.grad is None


def test_copies_and_pickles_pool_by_their_own_attention() -> None:
    model, _ = pooled()
    images = images_of()
    expected = model(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), expected)
        with torch.no_grad():
            pooling_gate_of(other).weight.mul_(-1)
        assert not torch.allclose(other(images), expected)
        assert torch.equal(model(images), expected)
        assert pooled_module(other, pooling_gate_of(other)) == "last.1"


def test_threads_do_not_mix_their_images() -> None:
    model, _ = pooled()
    batches = [images_of(n % 3 + 1) for n in range(40)]
    with torch.no_grad():
        expected = [model(images) for images in batches]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(torch.no_grad()(model), batches))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_tails_before_and_after_the_attention_give_the_model() -> None:
    model, _ = pooled()
    images = images_of()
    for layer in ("fine.0", "fine", "middle", "last"):
        tail = Tap(model, layer).tail(images)
        changed = tail.raw * 1.5
        handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: output * 1.5)
        expected = model(images)
        handle.remove()
        torch.testing.assert_close(tail(changed), expected)


@pytest.mark.parametrize("explainer", ["gradcam", "scorecam", "ablationcam", "layercam", "occlusion"])
def test_explainers_take_the_model(explainer: str) -> None:
    model, _ = pooled()
    maps = sl.explain(model.float(), images_of(2).float(), explainer, layer="last", targets=torch.tensor([0, 1]))
    assert maps.shape == (2, 16, 16)
    assert maps.isfinite().all()


def test_earlier_attention_is_exported_with_the_model() -> None:
    model, _ = pooled()
    images = images_of()
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


@pytest.mark.parametrize(
    ("name", "layer"), [("timm/test_resnet", "layer2"), ("torchvision/shufflenet_v2_x0_5", "stage3")]
)
def test_load_model_puts_it_back(name: str, layer: str, tmp_path: Path) -> None:
    model = sl.load_model(name, classes=3)[0].eval()
    _, gate = insert_pooling_gate(model, layer)
    nn.init.normal_(gate.weight)
    save_file(model.state_dict(), tmp_path / "pooled.safetensors")
    again = sl.load_model(name, tmp_path / "pooled.safetensors")[0].eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    assert again.state_dict().keys() == model.state_dict().keys()


def test_the_explainer_shows_the_attention_at_its_own_places() -> None:
    model, gate = pooled()
    images = images_of(2)
    attention = (torch.einsum("bchw,c->bhw", model.fine(images), gate.weight[0]) + gate.bias).sigmoid().detach()
    full = F.interpolate(attention[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
    torch.testing.assert_close(sl.explain(model, images, "attention_pooling"), (full - low) / (high - low))


def test_the_guide_teaches_the_mask_at_the_places_of_its_layer() -> None:
    torch.manual_seed(1)
    objective = sl.Objective(TwoStages().double(), sl.guides.AttentionPooling(layer="fine"))
    batch = batch_of(side=16)
    output = objective(batch)
    inside = F.avg_pool2d(batch.masks[:, None].double(), 2)
    expected = F.binary_cross_entropy_with_logits(torch.zeros_like(inside), inside)  # a new one is 0.5 everywhere
    torch.testing.assert_close(output["attention_pooling"], expected)


def test_wrong_layers_are_rejected() -> None:
    model = TwoStages()
    with pytest.raises(SightlineError, match="'head'"):
        insert_pooling_gate(model, "head")
    assert not any(module._forward_hooks for module in model.modules())
    insert_pooling_gate(model, "fine")
    insert_pooling_gate(model)
    with pytest.raises(
        SightlineError, match=r"layer is 'middle', but the attention pooling of the model reads 'fine.1'"
    ):
        insert_pooling_gate(model, "middle")


def test_a_part_without_the_layer_says_what_is_missing() -> None:
    model, _ = pooled()
    with pytest.raises(SightlineError, match="the layer that it reads did not run"):
        model.last(torch.rand(1, 6, 8, 8).double())
