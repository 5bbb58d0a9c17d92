"""Tiny networks, small enough to be worked by hand or differentiated numerically."""

import torch
from torch import Tensor, nn


class TinyCNN(nn.Module):
    """Two convolutions with a smooth non-linearity, average pooling, a linear head."""

    def __init__(self, classes: int = 3, channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.Softplus(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Softplus(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, width), nn.Tanh())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.features(x)))


class InPlaceAfter(nn.Module):
    """A layer whose output is overwritten in place by what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.layer(x)).mean((2, 3)))


class Unlike(nn.Module):
    """A classifier without convolutions or blocks that anyone knows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embed(x.permute(0, 2, 3, 1))).mean((1, 2)))


class Wrapper(nn.Module):
    """Another object that holds a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def batch_of(size: int = 4, side: int = 8, classes: int = 3, dtype: torch.dtype = torch.float64):
    """A random batch with half-covering masks."""
    import sightline as sl

    return sl.Batch(
        torch.rand(size, 3, side, side, dtype=dtype),
        torch.arange(size) % classes,
        masks=(torch.rand(size, side, side) > 0.5).to(torch.uint8),
        indices=torch.arange(size),
    )
