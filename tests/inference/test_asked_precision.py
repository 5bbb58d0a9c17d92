"""`precision="bf16"`: the model's passes are in bfloat16, and everything else in float32."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE, OF_ATTENTION
from sightline.errors import SightlineError
from sightline.evaluation.measuring import evaluate_model
from sightline.explainers import list_explainers, needs_layer
from sightline.inference import precision as module
from sightline.inference.precision import running_in
from sightline.metrics import perturbation_curves

FEW: dict[str, dict[str, Any]] = {
    "lime": {"samples": 16, "patch": 8}, "kernel_shap": {"samples": 16, "patch": 8}, "rise": {"masks": 30},
    "smoothgrad": {"samples": 3}, "partition_shap": {"evaluations": 20}, "weighted_shap": {"evaluations": 20},
    "lots": {"iterations": 12, "tau": 0.0}, "integrated_gradients": {"steps": 4}, "occlusion": {"window": 4, "stride": 4},
}  # fmt: skip
# Small differences of the tail's scores, sums that have to hold, and rules for gradients: float32 always.
EXACT = {"ablationcam", "fullgrad", "guided_backprop", "guided_gradcam", "deeplift", "lrp", "attnlrp"}
WITHOUT_THE_MODEL = {"gaussian"}
LAYER = "body.6"


class Network(nn.Module):
    """A small network that notes the format of its convolutions and of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)
        for part in (*self.body, self.head):
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.zeros_(part.bias)
        self.seen: set[torch.dtype] = set()
        self.body[3].register_forward_hook(lambda module, args, output: self.seen.add(output.dtype))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


def images(count: int = 2) -> Tensor:
    """Objects on black, so that scores depend on them by more than the rounding of bfloat16."""
    found = torch.zeros(count, 3, 16, 16)
    found[:, :, 4:11, 5:13] = torch.rand(count, 3, 7, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    return found.clamp(0, 1)


def correlation(first: Tensor, second: Tensor) -> float:
    return min(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in zip(first, second))


@pytest.mark.parametrize("name", sorted(set(list_explainers()) - ELSEWHERE - WITHOUT_THE_MODEL))
def test_an_explainer_runs_its_passes_in_bfloat16_or_says_that_it_does_not(name: str) -> None:
    explainer, model = sl.create_explainer(name, **FEW.get(name, {})), Network().eval()
    layer = LAYER if needs_layer(name) else None
    whole = sl.explain(model, images(), explainer, 2, layer)
    model.seen.clear()
    found = sl.explain(model, images(), explainer, 2, layer, precision="bf16")
    assert found.dtype == torch.float32
    if name in EXACT:
        # The trial of the model, and the pass that settles what is explained, are in bfloat16.
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)
    else:
        assert model.seen == {torch.bfloat16}
        assert not torch.equal(found, whole)
        assert correlation(whole, found) > 0.97


@pytest.mark.parametrize("name", sorted(OF_ATTENTION))
def test_maps_of_attention_stay_in_float32(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 4}
    model = timm.create_model("vit_tiny_patch16_224", **small).eval()
    found = sl.explain(model, images(), name, 1, precision="bf16")
    torch.testing.assert_close(found, sl.explain(model, images(), name, 1), rtol=0, atol=1e-6)


def test_gradcam_is_that_of_a_forward_pass_under_autocast() -> None:
    model = Network().eval()
    with torch.autocast("cpu", torch.bfloat16):
        activations = model.body(images())
        activations.retain_grad()
        model.head(activations.mean((2, 3)))[:, 3].float().sum().backward()
    assert activations.grad is not None
    weights = activations.grad.float().mean((2, 3), keepdim=True)
    expected = F.interpolate(
        (weights * activations.detach().float()).sum(1, keepdim=True).relu(), (16, 16), mode="bilinear"
    )[:, 0]
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    found = sl.explain(model, images(), "gradcam", 3, LAYER, precision="bf16")
    torch.testing.assert_close(found, (expected - low) / (high - low), rtol=0, atol=1e-4)


def test_curves_take_the_softmax_of_bfloat16_logits_in_float32() -> None:
    model, maps = Network().eval(), images().mean(1)
    with running_in("bf16"):
        curve = perturbation_curves(model, images(), maps, 1, steps=4, fill=0.0, curves=("deletion",))["deletion"]
    for image, one, values in zip(images(), maps, curve):
        order = one.flatten().argsort(descending=True, stable=True)
        for step, value in enumerate(values):
            changed = image.flatten(1).clone()
            changed[:, order[: step * 64]] = 0
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                logits = model(changed.view(1, 3, 16, 16))
            assert logits.dtype == torch.bfloat16
            assert float(value) == pytest.approx(float(logits.float().softmax(1)[0, 1]), abs=1e-6)


def test_scores_see_float32_and_the_model_is_unchanged() -> None:
    def score(logits: Tensor) -> Tensor:
        assert logits.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        return logits[:, 2]

    model = Network().eval()
    for name in ("gradcam", "rise", "saliency"):
        sl.explain(model, images(), sl.create_explainer(name, **FEW.get(name, {})), score, LAYER, precision="bf16")
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    assert model(images()).dtype == torch.float32
    assert module.precision_asked() == "fp32"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_pass_that_fails_leaves_autocast_off(error: type[BaseException]) -> None:
    class Failing(Network):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:  # after the trial
                raise error("stop")
            return super().forward(images)

    with pytest.raises(error, match="stop"):
        sl.explain(Failing().eval(), images(), "gradcam", layer=LAYER, precision="bf16")
    assert not torch.is_autocast_enabled("cpu")


class Kernel(nn.Module):
    """An operation of one number format, such as a kernel of someone's own."""

    def forward(self, values: Tensor) -> Tensor:
        if values.dtype != torch.float32:
            raise TypeError("float32 alone")
        return values


def jitted() -> nn.Module:
    return torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), images())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network().double(), r"weights are float64; call model.float\(\) first"),
        (lambda: nn.Sequential(jitted()), "part '0' of the model was made by torch.jit"),
        (
            lambda: nn.Sequential(Network(), Kernel()),
            r"in which the model fails \(TypeError: float32 alone\); use 'fp32'",
        ),
    ],
)
def test_models_that_cannot_run_in_bfloat16_raise(make: Callable[[], nn.Module], message: str) -> None:
    model = make().eval()
    given = images().double() if "float64" in message else images()
    assert sl.explain(model, given, "saliency").shape == (2, 16, 16)
    with pytest.raises(SightlineError, match=f"precision is 'bf16', .*{message}"):
        sl.explain(model, given, "saliency", precision="bf16")
    assert not torch.is_autocast_enabled("cpu")


def test_a_device_without_bfloat16_and_an_unknown_precision_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SightlineError, match="precision is 'fp16'; expected 'fp32' or 'bf16'"):
        sl.explain(Network().eval(), images(), precision="fp16")  # type: ignore[call-overload]
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device_type: False)
    with pytest.raises(SightlineError, match="precision is 'bf16', which cpu does not have"):
        sl.explain(Network().eval(), images(), layer=LAYER, precision="bf16")


def test_a_model_that_fails_in_any_format_fails_with_the_error_of_any_format() -> None:
    with pytest.raises(SightlineError, match="does not take images with this number of channels"):
        sl.explain(Network().eval(), torch.rand(2, 4, 16, 16), "saliency", precision="bf16")


def test_an_evaluation_says_what_bfloat16_changed() -> None:
    model, masks = Network().eval(), torch.zeros(11, 16, 16, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 1
    everything = sl.Batch(images(11), torch.arange(11) % 5, masks=masks)
    batches = [everything.changed(**{k: v[rows] for k, v in vars(everything).items() if isinstance(v, Tensor)})
               for rows in torch.arange(11).split(4)]  # fmt: skip
    metrics = {"accuracy": {}, "insertion": {"steps": 8}, "average_drop": {}, "rfs": {}, "energy_in_mask": {}}
    found = {
        name: evaluate_model(model, batches, ["gradcam"], metrics, layer=LAYER, max_images_slow=9, precision=name)
        for name in ("fp32", "bf16")
    }
    assert "precision" not in found["fp32"].facts
    facts = found["bf16"].facts
    assert facts["precision"] == "bf16"
    change = facts["precision_change"]
    assert change["n"] == 8
    assert set(change["columns"]) == {
        "accuracy", "insertion@gradcam", "average_drop@gradcam", "rfs", "energy_in_mask@gradcam"
    }  # fmt: skip
    # The same differences, of two evaluations of everything: those of the 8 images are among them.
    for column, each in change["columns"].items():
        both = found["bf16"].samples[column] - found["fp32"].samples[column]
        assert each["n"] == 8
        assert each["largest"] <= both[~both.isnan()].abs().max() + 1e-6
    assert change["columns"]["energy_in_mask@gradcam"]["largest"] > 0
    places = slow_places(found["bf16"].samples["insertion@gradcam"])
    compared = found["bf16"].samples["insertion@gradcam"] - found["fp32"].samples["insertion@gradcam"]
    possible = [compared[[p for p in places if p != left]].mean() for left in places]  # 8 of the 9 slow images
    assert min(abs(float(p) - change["columns"]["insertion@gradcam"]["mean"]) for p in possible) < 1e-6


def slow_places(values: Tensor) -> list[int]:
    places = (~values.isnan()).nonzero()[:, 0].tolist()
    assert len(places) == 9
    return places
