"""Batch norms become part of the convolutions before them, in a copy, and the answers stay."""

import copy
import threading
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from test_fastest import FEW
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE
from sightline.inference import fastest as forms
from sightline.inference.fastest import PLAIN, Form, fastest, measure, pinned
from sightline.inference.folding import fold, foldable_pairs
from sightline.metric_base.registry import METRICS
from sightline.network.tap import Tap


@pytest.fixture(autouse=True)
def _no_measurements() -> Iterator[None]:
    forms._measured.clear()
    yield
    forms._measured.clear()


@pytest.fixture
def norms_run(monkeypatch) -> list[int]:
    """Counts the calls of PyTorch's batch norm, by the number of images."""
    calls: list[int] = []
    plain = F.batch_norm

    def count(values: Tensor, *args: object, **kwargs: object) -> Tensor:
        calls.append(len(values))
        return plain(values, *args, **kwargs)

    monkeypatch.setattr(F, "batch_norm", count)
    return calls


def drawn(model: nn.Module) -> nn.Module:
    """Return a model in eval mode whose batch norms change what goes through them."""
    draw = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.3, 3)):
                values.copy_(torch.rand(values.shape, generator=draw) * (high - low) + low)
            if module.affine:
                module.weight.data.uniform_(-1.5, 1.5, generator=draw)
                module.bias.data.uniform_(-1, 1, generator=draw)
    return model.eval()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(1), nn.Linear(16 * 9, 5),
    )  # fmt: skip


def test_fold_gives_the_expected_weight_and_bias() -> None:
    model = drawn(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.25)))
    model[0].weight.data.fill_(2)
    model[0].bias.data.fill_(3)
    model[1].weight.data.fill_(4)
    model[1].bias.data.fill_(5)
    model[1].running_mean.fill_(1)
    model[1].running_var.fill_(0.75)  # a standard deviation of 1 with eps
    folded = fold(model, [("0", "1")])
    assert folded[0].weight.item() == 2 * 4
    assert folded[0].bias.item() == (3 - 1) * 4 + 5
    assert isinstance(folded[1], nn.Identity)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("torchvision/resnet18", 20), ("torchvision/mobilenet_v3_small", 34), ("torchvision/densenet121", 59),
     ("timm/tf_efficientnet_lite0", 49), ("timm/resnet10t", 14), ("timm/convnext_atto", 0)],
)  # fmt: skip
def test_a_folded_network_gives_the_same_logits(name: str, pairs: int) -> None:
    model = drawn(sl.load_model(name, weights=None)[0]).double()
    images = torch.rand(2, 3, 96, 96, dtype=torch.float64)
    found = foldable_pairs(model, images, 1e-9)
    assert len(found) == pairs
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, found)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), model(images), rtol=1e-9, atol=1e-9)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    shared = {id(p) for p in model.parameters()} & {id(p) for p in folded.parameters()}
    assert (
        len(shared)
        == len(list(model.parameters()))
        - pairs
        - sum(model.get_submodule(c).bias is not None for c, _ in found)
        - 2 * pairs
    )  # all but the weights of the convolutions and of the batch norms


class Reused(nn.Module):
    """A network whose convolution's output is read twice, once past the batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        values = self.conv(images)
        return self.head((self.norm(values) + values).mean((2, 3)))


def test_an_output_that_is_read_elsewhere_too_keeps_its_batch_norm() -> None:
    model, images = drawn(Reused()), torch.rand(2, 3, 128, 128)
    assert foldable_pairs(model, images, 1e-5) == (("conv", "norm"),)  # only the whole answer can tell
    assert measure(model, images).folded == ()


def test_parts_that_run_twice_and_norms_in_training_are_unchanged() -> None:
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    twice = drawn(nn.Sequential(conv, norm, conv, norm))
    assert foldable_pairs(twice, torch.rand(1, 3, 8, 8), 1e-5) == ()
    model = network().eval()
    model[1].train()
    assert foldable_pairs(model, torch.rand(2, 3, 32, 32), 1e-5) == (("3", "4"),)


def test_a_convolution_that_computes_its_weights_is_unchanged() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std(
                (1, 2, 3), keepdim=True
            )
            return F.conv2d(images, weight, self.bias)

    model = drawn(nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4)))
    assert foldable_pairs(model, torch.rand(1, 3, 8, 8), 1e-5) == ()


PAIRS = (("0", "1"), ("3", "4"))


@pytest.mark.parametrize("name", sorted(set(sl.explainers.list_explainers()) - ELSEWHERE))
def test_an_explainer_gives_the_same_map_with_folded_norms(name: str) -> None:
    model, images = drawn(network()).double(), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    layer = "6" if sl.explainers.list_explainers()[name]["needs_layer"] else None
    maps = {}
    for form in (PLAIN, Form(rows=2, folded=PAIRS)):
        with pinned(form):
            maps[form] = explainer(model, images, layer=layer)
    torch.testing.assert_close(maps[PLAIN], maps[form], rtol=0, atol=1e-7)
    assert "forward" not in vars(model)


@pytest.mark.parametrize("name", ["rise", "occlusion", "scorecam"])
def test_passes_without_gradients_run_no_folded_norm(name: str, norms_run: list[int]) -> None:
    model, images = drawn(network()), torch.rand(1, 3, 32, 32)
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    for form, expected in ((PLAIN, True), (Form(rows=2, folded=PAIRS), False)):
        norms_run.clear()
        with pinned(form):
            explainer(model, images, layer="6" if name == "scorecam" else None)
        assert (sum(norms_run) > 8) == expected  # the first pass may be a tapped one


@pytest.mark.parametrize("name", ["insertion", "morf"])
def test_a_metric_gives_the_same_value_with_folded_norms(name: str, norms_run: list[int]) -> None:
    model, images = drawn(network()), torch.rand(3, 3, 32, 32)
    values = []
    for form in (PLAIN, Form(rows=4, folded=PAIRS)):
        norms_run.clear()
        with pinned(form):
            metric = METRICS.create(name, model=model)
            metric.update(images, images.mean(1))
            values.append(metric.compute())
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-5)
    assert sum(norms_run) <= 6


def test_gradients_hooks_copies_and_other_threads_get_the_model_itself(norms_run: list[int]) -> None:
    model, images = drawn(network()), torch.rand(2, 3, 64, 64)

    def counted(run: object) -> int:
        norms_run.clear()
        run()
        return len(norms_run)

    def elsewhere() -> None:
        thread = threading.Thread(target=model, args=(images,))
        thread.start()
        thread.join()

    with torch.no_grad(), pinned(Form(rows=2, folded=PAIRS)), fastest(model, images):
        forms.FASTEST_ROWS.get()(images, True)
        assert counted(lambda: model(images)) == 0
        assert counted(elsewhere) == 2
        with torch.enable_grad():
            assert counted(lambda: model(images)) == 2
        handle = model[2].register_forward_hook(lambda module, args, output: None)
        assert counted(lambda: model(images)) == 2
        handle.remove()
        other = copy.deepcopy(model)
        other[10].weight.data.zero_()
        assert counted(lambda: other(images)) == 2
        torch.testing.assert_close(other(images), model[10].bias.expand(2, -1))
        assert model(images).std() > 0
    assert counted(lambda: model(images)) == 2


class Nested(nn.Module):
    """A convolution in a holder of its own, its batch norm elsewhere, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"holder": nn.Sequential(nn.Conv2d(3, 4, 3)), "norm": nn.BatchNorm2d(4)})
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.block["norm"](self.block["holder"](images))).mean((2, 3)))


@pytest.mark.parametrize(
    ("layer", "norms"), [("block.holder.0", 1), ("block.holder", 1), ("block.norm", 0), ("act", 0)]
)
def test_a_tap_sees_the_models_own_activations(layer: str, norms: int, norms_run: list[int]) -> None:
    model, images = drawn(Nested()).double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    pairs = foldable_pairs(model, images, 1e-9)
    assert pairs == (("block.holder.0", "block.norm"),)
    plain = Tap(model, layer)(images)
    with torch.no_grad(), pinned(Form(rows=2, folded=pairs)), fastest(model, images):
        forms.FASTEST_ROWS.get()(images, True)
        norms_run.clear()
        folded = Tap(model, layer)(images)
    assert len(norms_run) == norms
    torch.testing.assert_close(folded.activations, plain.activations)
    torch.testing.assert_close(*(some.gradients(some.logits[:, 1]) for some in (folded, plain)))


def test_changed_weights_are_folded_again() -> None:
    model, images = drawn(network()), torch.rand(2, 3, 32, 32)
    explainer = sl.create_explainer("rise", masks=8)
    with pinned(Form(rows=2, folded=PAIRS)):
        explainer(model, images)
        model[0].weight.data.mul_(-2)
        changed = explainer(model, images)
    with pinned(PLAIN):
        torch.testing.assert_close(changed, explainer(model, images), rtol=0, atol=1e-5)
