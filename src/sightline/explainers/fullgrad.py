"""FullGrad: what the input and every bias of a network contribute to a score.

A network of linear layers and ReLUs is linear in its input and its biases taken together, so a logit is exactly

    f(x) = <x, df/dx> + sum over layers of <b, df/dz>,    z the layer's output and b its bias

(Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019). Normalization by
stored statistics is a linear layer too, with the bias beta - gamma mean / deviation. An activation function s other than
ReLU is taken for its tangent, whose bias is s(z) - s'(z) z: the paper's implicit biases.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from sightline._core.checks import check_choice
from sightline._core.seeding import generator
from sightline._core.tensors import at_least_float32
from sightline.errors import NotDefinedError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.inference.precision import running_in
from sightline.network.forms import check_open
from sightline.network.layers import LayerSelection
from sightline.network.logits import returned_logits
from sightline.network.modes import in_this_thread
from sightline.network.targets import Targets, resolve_score

# Layers that add a bias, and activation functions that have an implicit one. All other modules, such as ReLU and pooling,
# are taken to have none, and whether that holds is checked.
AFFINE = (_ConvNd, nn.Linear, _BatchNorm)
POINTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LogSigmoid, nn.Mish, nn.SELU,
    nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip


@dataclass
class FullGradients:
    """A score taken apart.

    Attributes:
        input: x df/dx, (B, C, H, W).
        biases: (name, b df/dz) for each run of a layer with a bias, in order: (B, C, h, w) where the layer's output has
            places, and the output's own shape where it has none.
    """

    input: Tensor
    biases: list[tuple[str, Tensor]]


@EXPLAINERS.register("fullgrad", needs_gradient=True, needs_layer=False)
class FullGrad(Explainer):
    """FullGrad: the input times its gradient, and the bias gradients of every layer (Srinivas & Fleuret 2019).

    The map is psi(x df/dx) plus psi(b df/dz) of all layers whose output has places, summed over channels; psi takes the
    absolute value, scales it to [0, 1] and resizes it bilinearly to the input. What has no place, such as the
    bias of a fully connected layer, is left out.

    Args:
        rescale: what psi scales to [0, 1]: each `"channel"`, as the formula reads, or all channels of a `"layer"` together,
            as the authors' code does.

    References:
        Srinivas, Fleuret, "Full-Gradient Representation for Neural Network Visualization" (NeurIPS 2019), the FullGrad
            saliency map of convolutional networks.
    """

    def __init__(self, rescale: Literal["channel", "layer"] = "channel") -> None:
        check_choice(("channel", "layer"), rescale=rescale)
        self.rescale = rescale

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]; all layers take part, regardless of `layer`."""
        with running_in("fp32"):  # bfloat16 is too coarse to see whether the sum holds
            parts = full_gradients(model, inputs, targets)
        spatial = [parts.input, *(part for _, part in parts.biases if part.ndim == 4 and len(part) == len(inputs))]
        size = (inputs.shape[-2], inputs.shape[-1])
        # Resizing is linear, so the channels' sum is resized instead of each channel.
        return normalize_maps(torch.stack([resize_maps(self._scaled_sum(part), size) for part in spatial]).sum(0))

    def _scaled_sum(self, part: Tensor) -> Tensor:
        images, channels, height, width = part.shape
        rows = images * channels if self.rescale == "channel" else images
        magnitudes = at_least_float32(part.abs())
        return normalize_maps(magnitudes.reshape(rows, -1, width)).view(images, channels, height, width).sum(1)


def full_gradients(model: nn.Module, inputs: Tensor, targets: Targets = None) -> FullGradients:
    """Return what the input and each bias contribute to a score; their sum is the score, if it is linear in the logits.

    Args:
        model: a classifier in eval mode.
        inputs: (B, C, H, W), as the model takes them.
        targets: what to explain, as in `Explainer.__call__`.

    Raises:
        NotDefinedError: the contributions do not sum to the score, since something in the model is neither linear nor an
            activation function in its own module: LayerNorm, attention, squeeze and excitation. It names the module.
    """

    def ask(output: Any) -> tuple[Tensor, Tensor]:
        score = resolve_score(targets, output)
        return returned_logits(output), score(output, torch.arange(len(inputs), device=inputs.device))

    parts, complete = _take_apart(model, inputs, ask)
    if not complete:
        raise NotDefinedError(
            f"fullgrad is not defined for this model: {_culprit(model, inputs)} is neither linear nor an activation function "
            "of torch.nn in a separate module; use another explainer, such as 'gradcam'"
        )
    return parts


@dataclass
class _Run:
    """One run of a module that has a bias."""

    name: str
    module: nn.Module
    bias: Tensor
    output: Tensor

    def contribution(self, gradient: Tensor) -> Tensor:
        """Return the bias times the gradient of the output, channels first where there are places."""
        product = self.bias * gradient
        return product.movedim(-1, 1) if isinstance(self.module, nn.Linear) and product.ndim == 4 else product


def _take_apart(
    model: nn.Module, inputs: Tensor, ask: Callable[[Any], tuple[Tensor, Tensor]]
) -> tuple[FullGradients, bool]:
    """Return the contributions to a score, and whether they sum to it.

    Args:
        model: any module with one input.
        inputs: its input.
        ask: from the module's output to the tensor in it that is taken apart, and the scores computed from that.
    """
    check_open(model)
    runs: list[_Run] = []
    inputs = inputs.detach().requires_grad_()
    # Half precision is too coarse to see whether the sum holds.
    with torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False), ExitStack() as stack:
        for module, name in {module: name for name, module in _with_bias(model)}.items():
            for handle in _record(module, name, runs):
                stack.callback(handle.remove)
        end, scores = ask(model(inputs.clone()))
        points = [inputs, end, *(run.output for run in runs)]
        of_input, of_end, *gradients = torch.autograd.grad(scores.sum(), points, materialize_grads=True)
    biases = [(run.name, run.contribution(gradient)) for run, gradient in zip(runs, gradients)]
    parts = FullGradients((inputs * of_input).detach(), biases)

    terms = torch.cat([part.flatten() for part in (parts.input, *(part for _, part in biases))])
    error = (terms.sum() - (end * of_end).detach().sum()).abs()
    return parts, not bool(error > torch.finfo(end.dtype).eps ** 0.5 * terms.abs().sum())  # a NaN is for others to find


def _with_bias(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that have a bias, by name, without modules inside one of them."""
    if isinstance(module, AFFINE + POINTWISE):
        yield name, module
    else:
        for child_name, child in module.named_children():
            yield from _with_bias(child, f"{name}.{child_name}".removeprefix("."))


def _record(module: nn.Module, name: str, runs: list[_Run]) -> list[RemovableHandle]:
    """Hooks that add each run of a module to `runs`, unless its bias is None."""
    biases: list[Tensor | None] = []

    def before(module: nn.Module, args: Any) -> None:  # a module that works in place has lost its input afterwards
        biases.append(_bias(module, args[0].detach()))

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if (bias := biases.pop()) is not None:
            runs.append(_Run(name, module, bias, output))
        return output.clone()  # in-place operations that follow must not reach what we keep

    return [
        module.register_forward_pre_hook(in_this_thread(before)),
        module.register_forward_hook(in_this_thread(after)),
    ]


def _bias(module: nn.Module, given: Tensor) -> Tensor | None:
    """Return what a module adds to a linear function of its input, in a shape that broadcasts to its output."""
    if isinstance(module, POINTWISE) or any(module.children()):  # timm's normalization holds an activation function
        answer, tangent = torch.func.jvp(lambda z: module.forward(z.clone()), (given,), (given,))[:2]
        return (answer - tangent).detach()
    if isinstance(module, _BatchNorm):
        return module.forward(torch.zeros_like(given[:1])).detach()
    if not isinstance(module.bias, Tensor):
        return None
    return module.bias.detach().reshape(-1, *[1] * (0 if isinstance(module, nn.Linear) else given.ndim - 2))


def _culprit(model: nn.Module, inputs: Tensor) -> str:
    """Return the innermost module whose output is not the sum of its contributions from input and biases."""
    calls: list[tuple[str, nn.Module, Tensor]] = []  # as they end: the innermost first
    with torch.no_grad(), ExitStack() as stack:
        for name, module in model.named_modules():

            def keep(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                tensors = (*args, output)
                if len(args) == 1 and all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
                    calls.append((name, module, args[0]))

            stack.callback(module.register_forward_hook(in_this_thread(keep)).remove)
        model(inputs)

    def ask(output: Tensor) -> tuple[Tensor, Tensor]:  # weighted, since a plain sum may cancel
        weights = torch.randn(output.shape, generator=generator("fullgrad"), dtype=output.dtype)
        return output, output * weights.to(output.device)

    for name, module, given in calls:
        if not _take_apart(module, given, ask)[1]:
            return f"{name!r} ({type(module).__name__})" if name else f"the {type(module).__name__} itself"
    return f"the {type(model).__name__} itself"
