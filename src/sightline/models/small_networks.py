"""Sightline's own models: a small residual network that trains from scratch in seconds, and LeNet-5 for the smallest images."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from sightline.models.registry import MODELS


class Block(nn.Module):
    """Two 3 x 3 convolutions next to a 1 x 1 shortcut; halves the side (He et al., "Deep residual learning", 2016)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


@MODELS.register("small_cnn", size=64)
class SmallCNN(nn.Module):
    """A residual network of three blocks, about 0.2 million parameters, for images of 32 to 64 px.

    Its last feature map has an eighth of the image's side, fine enough for a map of where it looks.

    Args:
        classes: number of logits.
        width: channels of the first block; doubled by each following one.

    Shape:
        images (B, 3, H, W) to logits (B, classes); features (B, 4 width, H/8, W/8).
    """

    def __init__(self, classes: int = 10, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width), Block(width, 2 * width), Block(2 * width, 4 * width))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.blocks(self.stem(images))  # (B, 4 width, H/8, W/8)
        return self.head(features.mean((2, 3)))


@MODELS.register("lenet5", size=32)
class LeNet5(nn.Sequential):
    """LeNet-5 for color images, with ReLU and max pooling instead of squashing units and trainable subsampling.

    The pooling before the first linear layer is the identity at 32 px, and lets other sizes in.

    Shape:
        images (B, 3, H, W) with H, W >= 18 to logits (B, classes).

    References:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.B.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, 6, 5),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                resize=nn.AdaptiveAvgPool2d(5),
                flatten=nn.Flatten(),
                fc1=nn.Linear(400, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                head=nn.Linear(84, classes),
            )
        )
        self._layers = tuple(self._modules)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits; a branch that a guide adds is also a child, but not a layer."""
        for name in self._layers:
            images = self.get_submodule(name)(images)
        return images
