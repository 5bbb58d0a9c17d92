"""LeGrad: how sensitive each block's own answer is to its attention."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.checks import check_count
from sightline._core.tensors import at_least_float32
from sightline.errors import NotDefinedError, SightlineError
from sightline.explainers.attention.recording import Recorder, split_calls, token_layer, tokens_to_maps
from sightline.explainers.precision import PreciseExplainer
from sightline.explainers.registry import EXPLAINERS
from sightline.network.execution import main_output
from sightline.network.layers import LayerSelection
from sightline.network.modes import in_this_thread
from sightline.network.tap import first_of, with_first
from sightline.network.targets import Targets, resolve_score


@EXPLAINERS.register("legrad", needs_gradient=True, needs_layer=False, needs_attention=True)
class LeGrad(PreciseExplainer):
    """LeGrad: positive gradients of each block's score with respect to its attention (Bousselham et al. 2025).

    The score of a block is what the rest of the model, such as the final norm and the head, answers to the mean of the block's
    tokens. The gradients are averaged over heads, queries and blocks.

    Args:
        blocks: number of blocks that take part, counted from the last; None = all.

    References:
        Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity" (ICCV
            2025).
    """

    def __init__(self, blocks: int | None = None) -> None:
        if blocks is not None:
            check_count(blocks=blocks)
        self.blocks = blocks

    def explain_precisely(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]; `layer` says how tokens are arranged where the model's family does not."""
        tokens = token_layer(model, layer, inputs)
        names = _blocks(model, tokens.name)
        if self.blocks is not None and self.blocks > len(names):
            raise SightlineError(f"blocks is {self.blocks}; expected at most {len(names)}, the blocks of the model")
        score = resolve_score(targets, model(inputs))
        means: list[Tensor] = []  # of each block's tokens
        ends: list[int] = []  # how many calls of attention had run when the block ended

        def end(module: nn.Module, args: Any, output: Any) -> Any:
            found = first_of(output)
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            if not isinstance(found, Tensor) or found.ndim != 3 or (means and found.shape != means[0].shape):
                raise NotDefinedError(
                    f"legrad is not defined for {type(model).__name__}: its blocks must return the same tokens (B, N, C), and "
                    f"one of {names} returns {shape}; use another explainer, such as 'gradcam'"
                )
            means.append(found.mean(1, keepdim=True).expand_as(found))
            ends.append(len(recorder.calls))
            # The next block starts from values without a history; the head sees each block's mean as its only token.
            return with_first(output, torch.cat(means) if len(means) == len(names) else found.detach())

        with ExitStack() as stack:
            for name in names:
                stack.callback(model.get_submodule(name).register_forward_hook(in_this_thread(end)).remove)
            stack.enter_context(torch.enable_grad())
            try:
                with Recorder(len(inputs)) as recorder:
                    output = model(inputs)
            except RuntimeError:
                if len(means) < len(names):
                    raise
                output = None
            answers = main_output(output)
            images = torch.arange(len(inputs), device=inputs.device).repeat(len(names))
            if answers is None or len(answers) != len(images):
                raise NotDefinedError(
                    f"legrad is not defined for {type(model).__name__}: what follows its blocks does not take the tokens of "
                    "several blocks as one batch; use another explainer, such as 'transformer_attribution'"
                )
            total = score(output, images).sum()
        calls, _ = split_calls(model, recorder.calls[: ends[-1]], len(inputs), tokens.prefix)
        first = ends[-self.blocks - 1] if self.blocks is not None and self.blocks < len(names) else 0
        found = torch.autograd.grad(total, [call.weights for call in calls[first:]])
        gained = torch.stack([g.to(at_least_float32(inputs).dtype).relu().mean((1, 2)) for g in found]).mean(0)
        return tokens_to_maps(tokens, gained, (inputs.shape[-2], inputs.shape[-1]))


def _blocks(model: nn.Module, name: str) -> list[str]:
    """Return the names of the blocks of a transformer, by that of a layer in one of them.

    Raises:
        SightlineError: the layer is in no list of blocks.
    """
    parts = name.split(".")
    for depth in range(len(parts)):
        outer = ".".join(parts[:depth])
        holder = model.get_submodule(outer)
        if isinstance(holder, nn.ModuleList | nn.Sequential) and len(holder) > 1:
            return [f"{outer}.{child}" if outer else child for child, _ in holder.named_children()]
    raise SightlineError(
        f"layer is {name!r}, which is in no nn.ModuleList or nn.Sequential of blocks; expected a layer in the last block of a "
        "transformer"
    )
