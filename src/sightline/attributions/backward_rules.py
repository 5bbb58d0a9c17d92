"""Attributions by rules that replace gradients in the backward pass: guided backprop, DeepLIFT, LRP."""

from typing import Any

import torch
from torch import Tensor, nn

from sightline.attributions.attribution import AttributionRequest, Baseline, attribution
from sightline.attributions.fx_modules import AFFINE, LINEAR, MOVING, Rules, ScoreModule, explicit
from sightline.errors import NotDefinedError
from sightline.explainers.base import resize_maps
from sightline.explainers.cam import gradcam, summed
from sightline.explainers.places import tap_layers
from sightline.network.targets import Score


def _explicit(request: AttributionRequest, rules: Rules) -> ScoreModule:
    """Return a copy of the model with its score, for Captum to hook."""
    module = ScoreModule(explicit(request.model, rules), request.score)
    image, index = request.inputs[:1], request.image_index[:1]
    if not torch.allclose(module(image, index), request.forward(image, index), rtol=1e-3, atol=1e-4):
        raise NotDefinedError(
            f"{rules.method} is not defined for this model: a copy of {type(request.model).__name__} without in-place "
            "operations gives other scores; use another explainer, such as 'saliency'"
        )
    return module


_GUIDED = Rules(
    "guided backprop",
    kinds=(nn.ReLU, nn.MaxPool2d, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, *AFFINE),
    functions=LINEAR | {"group_norm", "layer_norm"},
)
_DEEPLIFT = Rules(
    "DeepLIFT",
    exact=frozenset({nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d}),
    kinds=AFFINE,
    functions=LINEAR,
    windowed=True,
)


@attribution("guided_backprop", signed=False, precise="always")
def guided_backprop(request: AttributionRequest) -> Tensor:
    """Guided backprop: gradients that pass a ReLU only where they are positive (Springenberg et al. 2015).

    Defined for networks whose only activation is the ReLU; with any other it would be the plain gradient.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Springenberg et al., "Striving for Simplicity: The All Convolutional Net" (ICLR workshop 2015), section 3.4.
    """
    from captum.attr import GuidedBackprop

    module = _explicit(request, _GUIDED)
    return GuidedBackprop(module).attribute(request.input_leaf(), additional_forward_args=(request.image_index,))


@attribution("guided_gradcam", signed=False, needs_layer=True, precise="always")
def guided_gradcam(request: AttributionRequest) -> Tensor:
    """Guided Grad-CAM: guided backprop times Grad-CAM, resized bilinearly (Selvaraju et al. 2017).

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (ICCV 2017),
            section 3.2.
    """
    gradients = guided_backprop(request)
    tapped = tap_layers(request.model, request.layer, request.inputs)
    with torch.enable_grad():
        slopes = tapped.gradients(request.score(tapped.output, request.image_index))
    maps = [resize_maps(summed(gradcam(a.detach(), g)), tapped.image_size) for a, g in zip(tapped.activations, slopes)]
    return gradients * torch.stack([resize_maps(m, tapped.image_size) for m in maps]).mean(0)[:, None]


@attribution("deeplift", precise="always")
def deeplift(request: AttributionRequest, *, baseline: Baseline = 0.0) -> Tensor:
    """DeepLIFT, rescale rule: shares in the score's difference from that of a baseline (Shrikumar et al. 2017).

    The baseline is in the units of the model's input: 0 is the mean color of the training images where inputs are normalized.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.
        baseline: Image that the scores are compared with: a number, or a tensor that broadcasts to (1, C,
            H, W), in the units of the model's input. The default is the mean color of the training images where inputs are
            normalized.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Shrikumar, Greenside, Kundaje, "Learning Important Features Through Propagating Activation Differences" (ICML 2017),
            section 3.
    """
    from captum.attr import DeepLift

    module = _explicit(request, _DEEPLIFT)
    return DeepLift(module).attribute(
        request.input_leaf(), request.baseline(baseline), additional_forward_args=(request.image_index,)
    )


@attribution("lrp", precise="always")
def lrp(request: AttributionRequest) -> Tensor:
    """Layer-wise relevance propagation, epsilon rule (Bach et al. 2015).

    Epsilon is Captum's 1e-9, almost none: where every activation is a ReLU, the map is that of input x gradient
    (Ancona et al. 2018). A score of several logits, such as a contrast, is the last layer: each logit starts with what it
    adds to the score.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation"
            (PLoS ONE 2015), Eq. 58: the epsilon rule.
        Ancona et al., "Towards better understanding of gradient-based attribution methods for Deep Neural Networks" (ICLR
            2018), where input x gradient is the epsilon rule in a network of ReLUs.
    """
    from captum.attr import LRP
    from captum.attr._utils.custom_modules import Addition_Module

    rules = Rules(
        "LRP",
        exact=frozenset(
            {nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ReLU, nn.Tanh}
            | {Addition_Module}
        ),
        functions=MOVING,
        addition=Addition_Module,
    )
    module = _explicit(request, rules)
    module.score = _as_last_layer(module.score)
    return LRP(module).attribute(request.input_leaf(), additional_forward_args=(request.image_index,))


def _as_last_layer(score: Score) -> Score:
    """Return a score of 1 whose gradient at each output is the relevance of the output: its value times its slope.

    Captum starts with the slope and multiplies every relevance by the whole score in the end. That is right for a score that is
    one output; for another, such as -z or a - b, the shares and even the sign are wrong.
    """

    def relevance(output: Any, of: Tensor) -> Tensor:
        values = getattr(output, "logits", output)
        if not isinstance(values, Tensor):
            return score(output, of)
        with torch.enable_grad():
            leaf = values.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(score(leaf, of).sum(), leaf)
        total = (slopes * leaf.detach() * values).flatten(1).sum(1)
        return total - total.detach() + 1

    return relevance
