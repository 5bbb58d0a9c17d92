"""Fixtures of the tests of metrics: a region and a small network."""

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def region() -> Tensor:
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[:2] = True
    return region


@pytest.fixture
def network() -> nn.Module:
    """A small network in fp64 whose output depends on BatchNorm and dropout, in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.Dropout(0.5), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).double()  # fmt: skip
