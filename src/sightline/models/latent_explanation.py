"""The networks of IMPACTX's second branch: the latent explanation predictor, and the decoder of its code."""

import copy
from contextlib import ExitStack
from itertools import pairwise
from math import ceil, log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_count
from sightline.errors import SightlineError
from sightline.network.logits import returned_logits
from sightline.network.modes import evaluating

CODE = 512
GRID = 8  # channels of the decoder's grid
WIDTH = 32  # filters of the decoder's convolutions
CLOSING = ("torch.nn.modules.activation", "torch.nn.modules.dropout")


class Decoder(nn.Module):
    """A map from a code: a fully-connected layer to a grid of s x s, n times Conv, Conv, Upsample x 2, a linear output.

    The grid's side is in 4 .. 7, and n follows: s = 4, n = 3 for 32 px; 6 and 4 for 96 px; 7 and 5 for 224 px. Where s * 2^n is
    not the size, s is rounded up and the map resized. The paper draws the filters' numbers only for its own sizes; here
    every convolution has 32 of 3 x 3. The grid has eight channels: with one, 16 numbers would have to hold a 32-px map, and the
    maps of test images were learned less well.

    Weights start as He et al. have it for layers before a ReLU, biases at 0. PyTorch's default shrinks the signal at each of
    the 2 n + 2 layers, so hardly any gradient of the map's error would reach the encoder.

    Args:
        size: side of the map in pixels, at least 8.
        code: length of the code.

    Shape:
        (B, code) to (B, size, size).
    """

    def __init__(self, size: int, code: int = CODE) -> None:
        super().__init__()
        check_count(8, size=size)
        self.size = size
        self.doublings = int(log2(size)) - 2
        self.side = ceil(size / 2**self.doublings)
        self.grid = nn.Linear(code, GRID * self.side**2)
        widths = [GRID] + [WIDTH] * self.doublings
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(after, after, 3, padding=1),
                    nn.ReLU(),
                    nn.Upsample(scale_factor=2),
                )
                for before, after in pairwise(widths)
            )
        )
        self.output = nn.Conv2d(WIDTH, 1, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, code: Tensor) -> Tensor:
        """Return the maps (B, size, size)."""
        grid = self.grid(code).unflatten(1, (GRID, self.side, self.side))
        maps = self.output(self.blocks(grid))
        if self.side * 2**self.doublings != self.size:
            maps = F.interpolate(maps, (self.size, self.size), mode="bilinear", align_corners=False)
        return maps[:, 0]


class LatentExplanationPredictor(nn.Module):
    """A copy of a classifier whose closing fully-connected layers are one linear layer and a sigmoid.

    Args:
        model: copied with its weights.
        images: (1, C, H, W), any that the model takes, to find its closing layers.
        code: how many values come out.

    Raises:
        SightlineError: the model does not end in fully-connected layers.
    """

    def __init__(self, model: nn.Module, images: Tensor, code: int = CODE) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(model)
        first, *rest = _closing_layers(self.trunk, images)
        old = self.trunk.get_submodule(first)
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, code).to(old.weight)
        self.trunk.set_submodule(first, new)
        for name in rest:
            self.trunk.set_submodule(name, nn.Identity())
        heard: list[Tensor] = []
        hook = new.register_forward_hook(lambda module, args, output: heard.append(output))
        with hook, evaluating(self.trunk), torch.no_grad():
            output = returned_logits(self.trunk(images))
        if len(heard) != 1 or not torch.equal(output, heard[0]):
            raise SightlineError(
                f"{type(model).__name__} does more after its layer {first!r} than fully-connected layers; "
                "a latent explanation predictor cannot be made of it. Use a model that ends in linear layers"
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the code (B, code) in (0, 1)."""
        return returned_logits(self.trunk(inputs)).sigmoid()


def _closing_layers(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the last layers that run, from the first linear one on: only linear, activation and dropout."""
    ran: list[tuple[str, nn.Module, Any]] = []
    with ExitStack() as hooks, evaluating(model), torch.no_grad():
        for name, module in model.named_modules():
            if not next(iter(module.children()), None):
                hooks.enter_context(
                    module.register_forward_hook(lambda part, args, output, name=name: ran.append((name, part, output)))
                )
        model(images)
    closing: list[tuple[str, nn.Module]] = []
    for name, module, output in reversed(ran):
        allowed = isinstance(module, nn.Linear | nn.Identity) or type(module).__module__ in CLOSING
        if not allowed or not isinstance(output, Tensor) or output.ndim != 2:
            break
        closing.insert(0, (name, module))
    while closing and not isinstance(closing[0][1], nn.Linear):
        closing.pop(0)
    if not closing:
        raise SightlineError(
            f"{type(model).__name__} does not end in fully-connected layers, which the branch replaces; use a model that does"
        )
    return [name for name, _ in closing]
