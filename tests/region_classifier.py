"""A classifier whose answers can be worked out by hand."""

import torch
from torch import Tensor, nn


class RegionClassifier(nn.Module):
    """Two classes: the first one's probability is sigmoid(slope x mean of the region's pixels + offset)."""

    def __init__(self, region: Tensor, slope: float = 4.0, offset: float = -1.0) -> None:
        super().__init__()
        self.register_buffer("region", region)
        self.slope, self.offset = slope, offset
        self.images_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images_seen += len(images)
        mean = images.mean(1)[:, self.region].mean(1)
        score = self.slope * mean + self.offset
        return torch.stack([score, torch.zeros_like(score)], 1)
