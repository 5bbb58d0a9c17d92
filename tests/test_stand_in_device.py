"""Explainers, guides and metrics on a device that is not the CPU: no operation mixes devices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sightline as sl
from explainer_names import ELSEWHERE, OF_ATTENTION
from sightline.errors import SightlineError
from sightline.evaluation.measuring import evaluate_model
from sightline.guides import GUIDES
from stand_in import DEVICE, DeviceMismatch, StandIn, stand_in, to_device, to_host

FEW = {
    "deeplift": {},
    "integrated_gradients": {"steps": 3},
    "kernel_shap": {"samples": 12, "patch": 8},
    "lime": {"samples": 12, "patch": 8},
    "lots": {"iterations": 2},
    "occlusion": {"window": 8, "stride": 8},
    "partition_shap": {"evaluations": 12},
    "rise": {"masks": 8},
    "smoothgrad": {"samples": 2},
    "weighted_shap": {"evaluations": 12},
}


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip


SPEC = sl.InputSpec((0.4,) * 3, (0.3,) * 3, (16, 16))


def test_an_operation_on_two_devices_raises() -> None:
    with stand_in():
        there, here = to_device(torch.ones(3)), torch.ones(3)
        assert there.device == DEVICE
        for mix in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[there.long()],
            lambda: torch.where(there > 0, here, there),
            lambda: torch.randn(3, device=DEVICE, generator=torch.Generator()),
            lambda: there.numpy(),
        ):
            with pytest.raises(DeviceMismatch):
                mix()


def test_waits_of_the_host_are_counted() -> None:
    with stand_in() as log:
        there = to_device(torch.ones(3))
        there * 2 + torch.tensor(1.0)
        assert not log.waits
        float(there.sum())
        there[there > 0]
        there.cpu()
        assert sum(log.waits.values()) == 3


@pytest.mark.parametrize("name", sorted(set(sl.explainers.list_explainers()) - ELSEWHERE))
def test_an_explainer_stays_on_the_device(name: str) -> None:
    torch.manual_seed(0)
    model, images = network(), torch.rand(2, 3, 16, 16)
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    layer = "4" if sl.explainers.list_explainers()[name]["needs_layer"] else None
    expected = explainer(model, images, layer=layer, input_spec=SPEC)
    with stand_in():
        maps = explainer(to_device(model), to_device(images), layer=layer, input_spec=SPEC)
        assert isinstance(maps, StandIn)
    torch.testing.assert_close(to_host(maps), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(OF_ATTENTION))
def test_an_explainer_of_attention_stays_on_the_device(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 4}
    model, images = timm.create_model("vit_tiny_patch16_224", **small).eval(), torch.rand(2, 3, 16, 16)
    explainer = sl.create_explainer(name)
    expected = explainer(model, images, input_spec=SPEC)
    with stand_in():
        maps = explainer(to_device(model), to_device(images), input_spec=SPEC)
        assert isinstance(maps, StandIn)
    torch.testing.assert_close(to_host(maps), expected, rtol=0, atol=1e-5)


class Classifier(nn.Module):
    """The network as a module of its own, which guides may add to."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*list(network())[:5]), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean((2, 3)))


def batch(images: torch.Tensor | None = None) -> sl.Batch:
    masks = torch.zeros(4, 16, 16, dtype=torch.uint8)
    masks[:, 3:9, 4:12] = 1
    return sl.Batch(
        torch.rand(4, 3, 16, 16) if images is None else images, torch.arange(4), masks=masks, avoid=1 - masks,
        indices=torch.arange(4), groups=torch.tensor([0, 1, 0, 1]), boxes=torch.tensor([[[4.0, 3.0, 12.0, 9.0]]] * 4),
    )  # fmt: skip


# How often the host waits for the device in one training step: once, for the check of the loss. More where a guide draws by the
# images' indices, looks for connected parts on the CPU, or attacks the images, each of whose gradients is checked.
WAITS = {"random_background": 2, "region_activation": 2}
WITH_OPTIONS = {  # guides that look at the data before an epoch, or learn maps or groups
    "afr": {"regularization": 0.1},
    "explanation_consistency": {"interval": 1},
    "group_dro": {"groups": 2},
    "hard_negative_mining": {"interval": 1},
    "iccnn": {"groups": 2},
    "impactx": {"size": 16},
    "jtt": {},
    "wae": {"size": 16},
}


@pytest.mark.parametrize("name", sorted({entry.name for entry in GUIDES} - set(WITH_OPTIONS)))
def test_a_training_step_stays_on_the_device_and_waits_once(name: str) -> None:
    torch.manual_seed(0)
    layer = None if name in ("attention_branch", "attention_gate", "attention_pooling") else "body.4"
    objective = sl.Objective(Classifier(), GUIDES.create(name), input_spec=SPEC, layer=layer)
    given = batch()
    with stand_in() as log:
        to_device(objective)
        there = given.to(DEVICE)
        objective(there)["loss"].backward()  # checks the layer, once
        log.waits.clear()
        objective(there)["loss"].backward()
        if name != "adversarial_background":
            assert sum(log.waits.values()) == WAITS.get(name, 1), log.waits
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert gradients
    assert all(isinstance(gradient, StandIn) for gradient in gradients)


@pytest.mark.parametrize("name", sorted(WITH_OPTIONS))
def test_a_guide_of_passes_maps_or_groups_stays_on_the_device(name: str) -> None:
    torch.manual_seed(0)
    given = batch()
    given.maps = torch.rand(4, 16, 16)

    def train(move: Callable[[Any], Any]) -> tuple[float, Callable[[], None], sl.Objective]:
        torch.manual_seed(0)
        guide = GUIDES.create(name, **WITH_OPTIONS[name])
        objective = move(sl.Objective(Classifier(), guide, input_spec=SPEC, layer="body.4"))
        objective.on_stage_start([given])
        for epoch in (0, 1):
            objective.on_epoch_start([given], epoch)
        there = move(given)

        def step() -> None:
            objective(there)["loss"].backward()

        loss = objective(there)["loss"]
        loss.backward()
        return float(to_host(loss.detach())), step, objective

    expected = train(lambda value: value)[0]
    with stand_in() as log:
        found, step, objective = train(lambda v: to_device(v) if isinstance(v, nn.Module) else v.to(DEVICE))
        log.waits.clear()
        step()
        assert sum(log.waits.values()) == WAITS.get(name, 1), log.waits
    assert found == pytest.approx(expected, abs=1e-5)
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert gradients
    assert all(isinstance(gradient, StandIn) for gradient in gradients)


def test_wrong_pixels_are_an_error_on_the_device_too() -> None:
    objective = sl.Objective(Classifier(), sl.SegmentOverlap(), input_spec=SPEC, layer="body.4")
    with stand_in():
        to_device(objective)
        with pytest.raises(SightlineError, match=r"images range over \[.*, 255\]; expected \[0, 1\]"):
            objective(batch(torch.rand(4, 3, 16, 16) + 254 * torch.eye(16)).to(DEVICE))


METRICS = (
    "insertion",
    "deletion",
    "morf",
    "average_drop",
    "road",
    "energy_in_mask",
    "pointing_game",
    "miou",
    "rfs",
    "accuracy",
)


def test_an_evaluation_stays_on_the_device() -> None:
    torch.manual_seed(0)
    model, given = Classifier().eval(), batch()
    options = {name: {"steps": 4} if name in ("insertion", "deletion", "morf") else {} for name in METRICS}

    def evaluate() -> dict[str, float]:
        found = evaluate_model(model, [given], ["gradcam"], options, input_spec=SPEC, layer="body.4")
        assert not found.facts["left_out"]
        return {result.column: result.value for result in found.results}

    expected = evaluate()
    with stand_in():
        to_device(model)
        assert evaluate() == pytest.approx(expected, abs=1e-5)
