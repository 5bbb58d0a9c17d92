"""Can this model be trained with a guide? Answered before training, with a remedy."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.explainers.cam import CAM, gradcam
from sightline.explainers.places import warn_of_few_places
from sightline.network.execution import likely_shapes
from sightline.network.forms import compiled_modules
from sightline.network.layers import LayerChoice, resolve_layers
from sightline.network.modes import evaluating
from sightline.network.tap import Tap, unwrap
from sightline.objectives.base import Guide
from sightline.objectives.objective import Objective


def check_model(model: nn.Module, layer: LayerChoice | None = None, images: Tensor | None = None) -> None:
    """Reject a model whose maps cannot be trained, and say what to do.

    A loss on a map differentiates a gradient, so everything that follows the target layer needs a double backward. This looks
    for what is known to lack one, and then tries: the gradient of a Grad-CAM with respect to every parameter that
    follows the layer.

    Args:
        model: the classifier.
        layer: the target layer; None chooses by the model's family.
        images: (B, C, H, W) as the model takes them; default: two noise images of the size that the model states, else 224.

    Raises:
        SightlineError: the model cannot be trained with a guide; the message names the module and the remedy.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> sl.check_model(model)  # returns nothing: the model can be trained with a guide
    """
    plain = unwrap(model)
    for name, module in [("", model), *model.named_modules()]:
        if "FullyShardedDataParallel" in type(module).__name__ or type(module).__name__.startswith("FSDP"):
            raise SightlineError(
                f"{name or 'the model'} is sharded by FSDP, which does not support the second backward pass that a loss on "
                "maps needs; use DDP"
            )
    inputs = _noise(plain) if images is None else images
    tap = Tap(plain, resolve_layers(plain, layer, inputs))
    compiled = compiled_modules(plain)
    for name, module in _modules_after(tap, inputs):
        if isinstance(module, nn.SyncBatchNorm):
            raise SightlineError(
                f"{name} is a SyncBatchNorm after layer {tap.layers[0].name!r}, which has no double backward; choose a later "
                "layer, or keep BatchNorm (each process then normalizes by its own images)"
            )
        if module in compiled:
            raise SightlineError(
                f"{name} is compiled and comes after layer {tap.layers[0].name!r}, but torch.compile has no double backward; "
                "compile only what comes before the layer"
            )
    try:
        with evaluating(plain), torch.enable_grad():
            tapped = tap(inputs, train=True)
            warn_of_few_places(plain, inputs, tapped.layers, tapped.activations)
            (maps,) = CAM(gradcam).raw_maps(tapped, create_graph=True)
            _refuse_dead_ends(maps)
            trained = [p for p in plain.parameters() if p.requires_grad]
            torch.autograd.grad(maps.sum() + tapped.logits.sum(), trained, allow_unused=True)
    except RuntimeError as error:
        raise SightlineError(
            f"a loss on the maps of layer {tap.layers[0].name!r} cannot be differentiated: {str(error).partition(chr(10))[0]} "
            "(reentrant checkpointing: use_reentrant=False; a fused kernel without double backward: its plain version)"
        ) from error


def trains_on_maps(objective: Objective) -> bool:
    """Whether a guide of an objective differentiates maps of its layer, so the model must pass `check_model`.

    Guides that only read maps or activations, such as explanation consistency and icCNN, need one backward pass like any loss.
    """
    guides = [guide for guide in objective.guides if isinstance(guide, Guide)]
    return any(guide.second_order and (guide.needs_tap or guide.needs_layer) for guide in guides)


def _refuse_dead_ends(maps: Tensor) -> None:
    """Look for the nodes that autograd puts where a backward has no backward: a gradient past them is silently partial."""
    pending, seen = [maps.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().rpartition("::")[2] in ("Error", "DelayedError", "NotImplemented"):
            raise RuntimeError("a function in the tail can be differentiated once only")
        pending.extend(following for following, _ in node.next_functions)


def _noise(model: nn.Module) -> Tensor:
    parameter = next(model.parameters())
    return torch.rand(2, *next(likely_shapes(model)), device=parameter.device, dtype=parameter.dtype)


def _modules_after(tap: Tap, inputs: Tensor) -> list[tuple[str, nn.Module]]:
    """Return the modules that start to run after the target layer has run, in order."""
    after: list[tuple[str, nn.Module]] = []
    reached = False

    def reach(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal reached
        reached = True

    def start(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            if reached:
                after.append((name, module))

        return hook

    with evaluating(tap.model), torch.no_grad(), ExitStack() as stack:
        stack.callback(tap.model.get_submodule(tap.layers[0].name).register_forward_hook(reach).remove)
        for name, module in tap.model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):  # hooks do not act there
                stack.callback(module.register_forward_pre_hook(start(name)).remove)
        tap.model(inputs)
    return after
