"""Explainers of models in half precision, under autocast, and where a score has no gradient."""

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE
from sightline.errors import SightlineError
from sightline.explainers import list_explainers, needs_layer
from sightline.metrics import ExplanationConsistency

FEW = {
    "lime": {"samples": 16, "patch": 8}, "kernel_shap": {"samples": 16, "patch": 8}, "rise": {"masks": 30},
    "smoothgrad": {"samples": 3}, "partition_shap": {"evaluations": 20}, "weighted_shap": {"evaluations": 20},
    "lots": {"iterations": 2}, "integrated_gradients": {"steps": 4}, "occlusion": {"window": 4, "stride": 4},
}  # fmt: skip
NAMES = sorted(set(list_explainers()) - ELSEWHERE - {"gaussian", "randomcam"})
LAYER = "6"
UNASKED = ("lots", "augmented", "finercam")  # explains features; asks another explainer; takes classes alone


class TwoHeads(nn.Module):
    """Logits, and another part of the output that no score uses."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.aux, self.net = nn.Conv2d(3, 4, 3), net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"aux": self.aux(images), "logits": self.net(images)}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def maps_of(name: str, model: nn.Module, inputs: Tensor, targets=2) -> Tensor:
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    return explainer(model, inputs, targets, LAYER if needs_layer(name) else None)


def correlation(first: Tensor, second: Tensor) -> float:
    rows = [torch.stack([a.flatten(), b.flatten()]) for a, b in zip(first, second) if a.std() > 0]
    return min((float(torch.corrcoef(row)[0, 1]) for row in rows), default=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_the_maps_of_float32(name: str) -> None:
    whole = maps_of(name, network(), images())
    for dtype in (torch.bfloat16, torch.float16):
        found = maps_of(name, network().to(dtype), images().to(dtype))
        assert found.dtype == torch.float32
        assert correlation(whole, found) > (0.99 if name in ("ablationcam", "occlusion", "gradcam") else 0.85)
    with torch.autocast("cpu", torch.bfloat16):
        found = maps_of(name, network(), images())
    assert found.dtype == torch.float32
    assert correlation(whole, found) > (0.99 if name in ("ablationcam", "occlusion", "gradcam") else 0.85)


@pytest.mark.parametrize("name", [n for n in NAMES if list_explainers()[n]["needs_gradient"] and n not in UNASKED])
def test_a_score_without_a_gradient_is_named(name: str) -> None:
    with pytest.raises(sl.SightlineError, match=r"score (has no gradient|does not depend on the target layer)"):
        maps_of(name, network(), images(), lambda output: torch.ones(len(output)))


def test_a_layer_that_the_score_does_not_use_is_named() -> None:
    def score(output: dict[str, Tensor]) -> Tensor:
        return output["logits"][:, 2]

    model = TwoHeads(network())
    plain = sl.explain(network(), images(), targets=2, layer=LAYER)
    torch.testing.assert_close(sl.explain(model, images(), targets=score, layer=f"net.{LAYER}"), plain)
    for layer in ("aux", [f"net.{LAYER}", "aux"]):
        with pytest.raises(sl.SightlineError, match="does not depend on the target layer 'aux'"):
            sl.explain(model, images(), targets=score, layer=layer)


def test_an_int8_head_leaves_explainers_without_gradients() -> None:
    def int8() -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)

    for name in ("gradcam", "saliency"):
        with pytest.raises(sl.SightlineError, match="int8"):
            maps_of(name, int8(), images())
    assert correlation(maps_of("scorecam", network(), images()), maps_of("scorecam", int8(), images())) > 0.95


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attacks_inside_metrics_and_guides_take_half_precision(dtype: torch.dtype) -> None:
    model, inputs = network().to(dtype), images().to(dtype)
    metric = ExplanationConsistency(model, "gradcam", layer=LAYER)
    metric.update(inputs, sl.explain(model, inputs, layer=LAYER).to(dtype))
    assert 0 <= metric.compute() <= 1
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 1
    batch = sl.Batch(inputs, torch.tensor([0, 1]), masks=masks, indices=torch.arange(2))
    objective = sl.Objective(model, sl.guides.AdversarialBackground(steps=3, eps=0.1)).train()
    changed = objective.guides[0].transform(batch, objective).images
    change = (changed - inputs).abs().amax(1)
    assert changed.dtype == dtype
    assert (change[masks == 1] == 0).all()
    assert 0.09 < change.max() < 0.11
    guide = sl.guides.ExplanationConsistency(interval=1)
    objective = sl.Objective(model, guide, layer=LAYER)
    objective.on_epoch_start([batch], 0)
    assert guide.measure(objective, batch).isfinite().all()


@pytest.mark.parametrize("method", ["gradcam", "saliency", "rise"])
@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64])
def test_images_of_another_type_than_the_model_are_rejected(method: str, own: torch.dtype, given: torch.dtype) -> None:
    images = torch.rand(1, 3, 16, 16).to(given)
    if own == given:
        assert sl.create_explainer(method, **FEW.get(method, {}))(network().to(own), images).shape == (1, 16, 16)
        return
    with pytest.raises(
        SightlineError, match=rf"another type than its own .*parameters are {str(own)[6:]} on cpu: convert"
    ):
        sl.create_explainer(method, **FEW.get(method, {}))(network().to(own), images)


def test_a_transformer_with_images_of_another_type_raises() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=3).eval()
    with pytest.raises(SightlineError, match="parameters are float32 on cpu: convert the images"):
        sl.explain(model, torch.rand(1, 3, 160, 160, dtype=torch.float64))
