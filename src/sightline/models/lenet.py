"""LeNet-5, for the smallest images."""

from collections import OrderedDict

from torch import Tensor, nn

from sightline.models.registry import MODELS


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
