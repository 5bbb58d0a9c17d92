"""IMPACTX's second branch: a network parallel to the classifier. It predicts a map, and the classification reads its code.

As with attention gates, the branch is a child of an otherwise unchanged model, and a hook applies it: the model keeps its class
and the names of its parameters, gains those of the branch, and copies, saves and exports as before. With M the model, LEP
the latent explanation predictor, D the decoder and C the classifier, its logits become C(M(x), LEP(x)) and its map D(LEP(x)).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sightline.errors import NotDefinedError, SightlineError
from sightline.models.latent_explanation import CODE, Decoder, LatentExplanationPredictor
from sightline.network.branch import Branch, own_modules
from sightline.network.execution import likely_channels
from sightline.network.logits import returned_logits
from sightline.network.modes import evaluating

NAME = "two_branch"


class Explained(NamedTuple):
    """What one forward pass of a two-branch model gives.

    Attributes:
        logits: (B, K).
        maps: (B, size, size), signed: positive for the class, negative against it.
    """

    logits: Tensor
    maps: Tensor


class TwoBranch(Branch):
    """LEP, D and C, added to a model.

    Args:
        model: the classifier M with K classes; copied for LEP, and not kept.
        size: side of the model's input, in pixels.
        features: C reads the input of the model's classifier instead of its K logits.

    Attributes:
        frozen: keep M in eval mode whenever it runs, as two-stage training does.
        detached: C learns nothing to LEP: the code is a constant for the classification's gradient (WAE).
    """

    size: Tensor
    features: Tensor

    def __init__(self, model: nn.Module, size: int, features: bool = False) -> None:
        super().__init__()
        like = next(model.parameters())
        images = like.new_zeros(1, likely_channels(model)[0], size, size)
        with evaluating(model), torch.no_grad():
            classes = returned_logits(model(images)).shape[1]
        self.lep = LatentExplanationPredictor(model, images)
        self.decoder = Decoder(size).to(like)
        width = _head(model).in_features if features else classes
        self.classifier = nn.Linear(width + CODE, classes).to(like)
        self.register_buffer("size", torch.tensor(size, device=like.device))
        self.register_buffer("features", torch.tensor(features, device=like.device))
        self.frozen = self.detached = False

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        """Return the logits (B, K) for inputs and the model's output for them."""
        code = self.lep(inputs)
        return self.classifier(torch.cat([seen, code.detach() if self.detached else code], 1))


def attach_two_branch(model: nn.Module, size: int, features: bool = False) -> TwoBranch:
    """Give a model its second branch; one that exists already stays, and is returned.

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
    """Return a model's second branch.

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
        with branch.lep.register_forward_hook(lambda module, args, code: codes.append(code)):
            logits = returned_logits(self.model(inputs))
        return Explained(logits, branch.decoder(codes[0]))


def _classify(module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
    """C's logits instead of the model's; it knows its arguments alone, so a copied model applies its own branch."""
    return two_branch_of(module)(args[0], returned_logits(output))


def _keep_frozen(module: nn.Module, args: Any) -> None:
    if two_branch_of(module).frozen:
        for each in own_modules(module).values():
            each.training = False


def _pass_features(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return args[0]


def _head(model: nn.Module) -> nn.Linear:
    last = list(own_modules(model).values())
    return [module for module in last if isinstance(module, nn.Linear)][-1]
