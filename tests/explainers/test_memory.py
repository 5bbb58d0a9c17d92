"""Whatever an explainer makes copies of, its memory is bounded by the number of images in one call."""

from typing import Any

import pytest
import torch
from torch import nn

import sightline as sl

SPEC = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (32, 32))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3),
    ).eval()  # fmt: skip


def peak(method: str, images: torch.Tensor, **options: Any) -> int:
    """The most bytes that tensors held at one time, beside those that were there before."""
    explainer = sl.create_explainer(method, **options)
    model = network()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        explainer(model, images, layer="3", input_spec=SPEC)
    held, most = 0, 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize(
    ("method", "options", "count"),
    [
        ("ablationcam", {}, 2),
        ("scorecam", {}, 2),
        ("rise", {"masks": 64}, 2),
        ("occlusion", {}, 2),
        ("integrated_gradients", {"steps": 32}, 2),
        ("smoothgrad", {"samples": 32}, 2),
        ("lime", {"samples": 64}, 1),
        ("kernel_shap", {"samples": 64}, 1),
        ("lots", {"iterations": 2}, 64),
        ("smoothgradcam++", {}, 64),
    ],
)
def test_a_small_chunk_needs_little_memory(method: str, options: dict[str, Any], count: int) -> None:
    images = torch.rand(count, 3, 32, 32)
    small, large = (
        peak(method, images, internal_batch_size=internal_batch_size, **options) for internal_batch_size in (4, 64)
    )
    assert 0 < small < 0.4 * large
