"""The parameter-randomization test: a map that explains the model changes when the model forgets.

Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), section 3.1.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from sightline._core.seeding import derive_seed
from sightline.errors import SightlineError, unknown_name
from sightline.explainers import Explainer, create_explainer
from sightline.faithfulness.similarity import spearman
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice
from sightline.network.logits import logits_of
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap
from sightline.network.targets import resolve_targets


@dataclass(frozen=True)
class SanityCheck:
    """How similar maps stay while a model forgets what it learnt, from its end to its beginning.

    Attributes:
        modules: (M) what was randomized at each step, on top of all before it; "" stands for the model's own parameters.
        spearman: (M, B) rank correlation of each image's map with that of the intact model, 0 for a constant map.
        ssim: (M, B) structural similarity of the two.
    """

    modules: list[str]
    spearman: Tensor
    ssim: Tensor


def sanity_check(
    model: nn.Module,
    explainer: str | Explainer,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    modules: Sequence[str] | None = None,
    layer: LayerChoice | None = None,
    input_spec: InputSpec | None = None,
    seed: int = 0,
) -> SanityCheck:
    """Randomise a copy of a model module by module, from its output to its input, and explain the images at each step.

    A module that knows how to start (`reset_parameters`) starts again. A parameter that belongs to no such module is
    shuffled, which keeps its scale and loses what it says.

    Args:
        model: a classifier that returns logits (B, K); not changed.
        explainer: an explainer or its name.
        images: (B, C, H, W), both sides at least 11 pixels; in [0, 1] with an input spec.
        targets: the class to explain throughout: (B,) or one index; None = the intact model's prediction.
        modules: names of what is randomized at each step, in this order, each with all that is inside it; None = every
            module that has its own parameters, from the one that starts last.
        layer: the target layer of the explainer, by name.
        input_spec: normalizes the images inside.
        seed: of the randomization.

    Raises:
        SightlineError: the model has no parameters, or a name that is not one of its modules.
    """
    if min(images.shape[-2:]) < 11:
        raise SightlineError(
            f"images have shape {tuple(images.shape)}; the window of SSIM needs 11 x 11 pixels or more"
        )
    explainer = create_explainer(explainer) if isinstance(explainer, str) else explainer
    forgetful = deepcopy(unwrap(model))
    inputs = to_inputs(images, input_spec)
    order, logits = _last_first(forgetful, inputs)
    known = dict(forgetful.named_modules())
    for name in modules or ():
        if name not in known:
            raise unknown_name("module", name, known)
    steps = list(order if modules is None else modules)
    if not steps:
        raise SightlineError("the model has no parameters to randomize; the sanity check needs a model with weights")
    classes = resolve_targets(targets, logits)

    def explain(step: str) -> Tensor:
        drawn = explainer.for_images(images, None, step)
        return drawn(forgetful, images, targets=classes, layer=layer, input_spec=input_spec)

    intact = explain("intact")
    ranks, structures = [], []
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "sanity check"))
        for name in steps:
            _randomize(known[name], deep=modules is not None)
            maps = explain(f"without {name}")
            ranks.append(spearman(intact, maps))
            structures.append(_ssim(intact, maps))
    return SanityCheck(steps, torch.stack(ranks), torch.stack(structures))


def _last_first(model: nn.Module, inputs: Tensor) -> tuple[list[str], Tensor]:
    """Return the names of the modules with parameters, from the one that starts last, and the logits."""
    started: dict[str, int] = {}
    ticks = count()
    with ExitStack() as hooks, torch.no_grad(), evaluating(model):
        for name, module in model.named_modules():

            def note(*_: object, name: str = name) -> None:
                started[name] = next(ticks)

            hooks.enter_context(module.register_forward_pre_hook(note))
        logits = logits_of(model(inputs))

    def start(name: str) -> int:
        while name not in started:  # attention uses its projection's weights without calling it
            name = name.rpartition(".")[0]
        return started[name]

    names = [name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None]
    names.reverse()
    return sorted(names, key=start, reverse=True), logits


def _randomize(module: nn.Module, deep: bool) -> None:
    for part in module.modules() if deep else [module]:
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
            continue
        for parameter in part.parameters(recurse=False):
            order = torch.randperm(parameter.numel())
            parameter.data = parameter.data.flatten()[order.to(parameter.device)].view_as(parameter)


def _ssim(first: Tensor, second: Tensor) -> Tensor:
    values = structural_similarity_index_measure(second[:, None], first[:, None], data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values
