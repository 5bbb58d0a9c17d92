"""Eq. 1 of explanation consistency as it is printed: without a clamp, in normalized units, with clipped maps; written out."""

from typing import Any

import pytest
import torch
from test_explanation_consistency import SPEC, lively
from torch import Tensor, nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.guides import create_guide


def grad_cam(model: nn.Module, pixels: Tensor, classes: Tensor, clip: bool) -> Tensor:
    activations = model.features(SPEC.normalize(pixels, checked=False)).detach().requires_grad_()
    logits = model.classifier(model.head(activations))
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), activations)
    maps = (gradient.mean((2, 3), keepdim=True) * activations.detach()).sum(1).relu()
    if clip:
        return maps.clamp(0, 1)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def by_hand(model: nn.Module, batch: sl.Batch, step: Tensor, clamp: bool, clip: bool) -> Tensor:
    pixels = batch.images.clone().requires_grad_()
    logits = model(SPEC.normalize(pixels, checked=False))
    classes = logits.argmax(1)
    loss = -logits.log_softmax(1).gather(1, batch.labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(loss, pixels)
    shown = grad_cam(model, batch.images, classes, clip)
    changed = batch.images + step * torch.where(gradient < 0, -1.0, 1.0) * (1 - shown)[:, None]
    changed = changed.clamp(0, 1) if clamp else changed
    again = grad_cam(model, changed, classes, clip)
    apart = (10 * (shown - again).square().mean((1, 2))).tanh()
    kept = model(SPEC.normalize(changed, checked=False)).argmax(1) == classes
    weights = torch.where(kept, apart, 1.0)
    return torch.where(classes == batch.labels, weights, 1.0).clamp_min(1e-9)


@pytest.mark.parametrize("mode", ["pass", "fused"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clamp": False},
        {"units": "normalized"},
        {"range": "clip"},
        {"clamp": False, "units": "normalized", "range": "clip"},
    ],
)
def test_weights_follow_the_options(options: dict[str, Any], mode: str) -> None:
    model, batch = lively()
    with torch.no_grad():
        model.classifier.weight.mul_(20)  # so that maps exceed 1
        batch.labels[:2] = model(SPEC.normalize(batch.images)).argmax(1)[:2]
    batch.indices = torch.arange(6)
    guide = create_guide("explanation_consistency", eps=0.02, mode=mode, interval=1, min_weight=1e-9, **options)
    objective = sl.Objective(model, guide, layer="features", input_spec=SPEC).eval()
    objective.on_epoch_start([batch], 0)
    if mode == "pass":
        found = guide.measure(objective, batch)
    else:
        objective.train()
        objective(batch)["loss"].backward()
        found = guide.weights
    step = torch.full((3, 1, 1), 0.02).double()
    if options.get("units") == "normalized":
        step = step * torch.tensor(SPEC.std)[:, None, None]
    expected = by_hand(model, batch, step, options.get("clamp", True), options.get("range") == "clip")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert (found < 1).any()


def test_only_class_activation_maps_are_clipped() -> None:
    with pytest.raises(SightlineError, match="range='clip' needs a class activation map"):
        create_guide("explanation_consistency", explainer="saliency", range="clip")
    for option in ({"units": "raw"}, {"range": "max"}):
        with pytest.raises(SightlineError, match=next(iter(option))):
            create_guide("explanation_consistency", **option)
