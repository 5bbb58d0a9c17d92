"""IMPACTX's second branch: a network beside the classifier that predicts a map, and whose code the classification reads.

As with attention gates, the branch is a child of a model that stays as it is, and a hook applies it: the model keeps its class
and the names of its parameters, gains those of the branch, and copies, saves and exports as before. With M the model, LEP
the latent explanation predictor, D the decoder and C the classifier, its logits become C(M(x), LEP(x)) and its map D(LEP(x)).
"""

import copy
from itertools import pairwise
from math import ceil, log2
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.errors import NotDefinedError, SightlineError
from sightline.network.layers import Branch, own_modules
from sightline.network.tap import evaluating, logits_of

NAME = "two_branch"
CODE = 512
WIDTH = 32  # filters of the decoder's convolutions
CLOSING = ("torch.nn.modules.activation", "torch.nn.modules.dropout")


class Explained(NamedTuple):
    """What one forward pass of a two-branch model gives.

    Attributes:
        logits: (B, K).
        maps: (B, size, size), signed: what speaks for the class, and what against it.
    """

    logits: Tensor
    maps: Tensor


class Decoder(nn.Module):
    """A map from a code: a fully-connected layer to a grid of s x s, n times Conv, Conv, Upsample x 2, a linear output.

    The grid's side is in 4 .. 7, and n follows: s = 4, n = 3 for 32 px; 6 and 4 for 96 px; 7 and 5 for 224 px. Where s * 2^n is
    not the size, s is rounded up and the map resized. The paper draws the filters' numbers only for its own sizes; here
    every convolution has 32 of 3 x 3.

    Args:
        size: side of the map in pixels, at least 8.
        code: length of the code.

    Shape:
        (B, code) to (B, size, size).
    """

    def __init__(self, size: int, code: int = CODE) -> None:
        super().__init__()
        if size < 8:
            raise SightlineError(f"size is {size}; a decoder makes maps of at least 8 pixels a side")
        self.size = size
        self.doublings = int(log2(size)) - 2
        self.side = ceil(size / 2**self.doublings)
        self.grid = nn.Linear(code, self.side**2)
        widths = [1] + [WIDTH] * self.doublings
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

    def forward(self, code: Tensor) -> Tensor:
        """The maps (B, size, size)."""
        grid = self.grid(code).unflatten(1, (1, self.side, self.side))
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
        handle = new.register_forward_hook(lambda module, args, output: heard.append(output))
        with evaluating(self.trunk), torch.no_grad():
            output = logits_of(self.trunk(images))
        handle.remove()
        if len(heard) != 1 or not torch.equal(output, heard[0]):
            raise SightlineError(
                f"{type(model).__name__} does more after its layer {first!r} than fully-connected layers; "
                "a latent explanation predictor cannot be made of it"
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """The code (B, code) in (0, 1)."""
        return logits_of(self.trunk(inputs)).sigmoid()


class TwoBranch(Branch):
    """LEP, D and C beside a model.

    Args:
        model: the classifier M with K classes; copied for LEP, and not kept.
        size: side of the model's input, in pixels.
        features: C reads the input of the model's classifier in place of its K logits.

    Attributes:
        frozen: keep M in eval mode whenever it runs, as two-stage training does.
        detached: C learns nothing to LEP: the code is a constant for the classification's gradient (WAE).
    """

    size: Tensor
    features: Tensor

    def __init__(self, model: nn.Module, size: int, features: bool = False) -> None:
        super().__init__()
        like = next(model.parameters())
        images = like.new_zeros(1, _channels(model), size, size)
        with evaluating(model), torch.no_grad():
            classes = logits_of(model(images)).shape[1]
        self.lep = LatentExplanationPredictor(model, images)
        self.decoder = Decoder(size).to(like)
        width = _head(model).in_features if features else classes
        self.classifier = nn.Linear(width + CODE, classes).to(like)
        self.register_buffer("size", torch.tensor(size, device=like.device))
        self.register_buffer("features", torch.tensor(features, device=like.device))
        self.frozen = self.detached = False

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        """The logits (B, K) for inputs and what the model says of them."""
        code = self.lep(inputs)
        return self.classifier(torch.cat([seen, code.detach() if self.detached else code], 1))


def attach_two_branch(model: nn.Module, size: int, features: bool = False) -> TwoBranch:
    """Give a model its second branch; one that is there already stays, and is returned.

    Args:
        model: changed in place: from now on it returns the logits of C.
        size: side of its input, in pixels.
        features: see `TwoBranch`.

    Raises:
        SightlineError: the model is a bare sequence, in which a branch would run as a layer; it does not end in
            fully-connected layers; or it has another branch.
    """
    branch = getattr(model, NAME, None)
    if isinstance(branch, TwoBranch):
        if (int(branch.size), bool(branch.features)) != (size, features):
            raise SightlineError(
                f"the model has a second branch already, of size {int(branch.size)} and features={bool(branch.features)}; "
                f"{size} and {features} were asked for"
            )
        return branch
    if type(model).forward is nn.Sequential.forward:
        raise SightlineError("the model is a bare nn.Sequential, which would run a branch as a layer; make it a module")
    branch = TwoBranch(model, size, features)
    if features:
        _head(model).register_forward_hook(_pass_features)
    model.add_module(NAME, branch)
    model.register_forward_pre_hook(_keep_frozen)
    model.register_forward_hook(_classify)
    return branch


def restore_two_branch(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a model the branch that the one a state dict comes from had; its values are loaded with the rest."""
    if f"{NAME}.size" in state:
        attach_two_branch(model, int(state[f"{NAME}.size"]), bool(state[f"{NAME}.features"]))


def two_branch_of(model: nn.Module) -> TwoBranch:
    """A model's second branch.

    Raises:
        NotDefinedError: it has none.
    """
    branch = getattr(model, NAME, None)
    if not isinstance(branch, TwoBranch):
        raise NotDefinedError(
            f"{type(model).__name__} has no branch that predicts maps; train it with the guide impactx"
        )
    return branch


class SelfExplaining(nn.Module):
    """A two-branch model that returns its map with its logits, from one forward pass; made to be exported.

    Args:
        model: with a second branch; it is not copied.

    Raises:
        NotDefinedError: the model has no second branch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        two_branch_of(model)
        self.model = model

    def forward(self, inputs: Tensor) -> Explained:
        """Logits and maps of inputs (B, C, H, W) as the model takes them."""
        codes: list[Tensor] = []
        branch = two_branch_of(self.model)
        handle = branch.lep.register_forward_hook(lambda module, args, code: codes.append(code))
        try:
            logits = logits_of(self.model(inputs))
        finally:
            handle.remove()
        return Explained(logits, branch.decoder(codes[0]))


def _classify(module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
    """C's logits in place of the model's; it knows its arguments alone, so that a copied model applies its own branch."""
    return two_branch_of(module)(args[0], logits_of(output))


def _keep_frozen(module: nn.Module, args: Any) -> None:
    if two_branch_of(module).frozen:
        for each in own_modules(module).values():
            each.training = False


def _pass_features(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return args[0]


def _closing_layers(model: nn.Module, images: Tensor) -> list[str]:
    """The names of the last layers that run, from the first linear one on, nothing but linear, activation and dropout."""
    ran: list[tuple[str, nn.Module, Any]] = []
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: ran.append((name, module, output)))
        for name, module in model.named_modules()
        if not next(iter(module.children()), None)
    ]
    with evaluating(model), torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
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
            f"{type(model).__name__} does not end in fully-connected layers, which the branch replaces"
        )
    return [name for name, _ in closing]


def _head(model: nn.Module) -> nn.Linear:
    last = list(own_modules(model).values())
    return [module for module in last if isinstance(module, nn.Linear)][-1]


def _channels(model: nn.Module) -> int:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels
