"""Class activation maps: each is one function of a layer's activations and their gradients.

Every function takes activations A (B, C, h, w) and the gradients dY/dA of the explained score, of the same shape, and
returns what each channel contributes at each place, (B, C, h, w). The map (B, h, w) is their sum over the channels, its
positive part, at the layer's resolution and before any normalization. Every step is a torch operation, so a map can
be differentiated where the gradients can.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from sightline._core.checks import check_non_negative
from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import at_least_float32, check_finite
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.places import tap_layers
from sightline.explainers.registry import EXPLAINERS, with_options
from sightline.network.layers import LayerSelection
from sightline.network.tap import Tapped
from sightline.network.targets import Targets, resolve_score


class CAM(Explainer):
    """A class activation map.

    Args:
        function: from activations and gradients to what each channel contributes, (B, C, h, w).
        needs_gradient: whether the function reads the gradients; where not, none are computed.
        reduce: from these contributions to the map (B, h, w).
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        needs_gradient: bool = True,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.function = function
        self.needs_gradient = needs_gradient
        self.reduce = reduce or summed
        self.batches = InternalBatches()

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]: resized to the input, normalized, and averaged over the layers."""
        one_by_one = isinstance(targets, Tensor) and targets.shape == (len(inputs),)
        if targets is not None and not isinstance(targets, int) and not one_by_one:
            return self._maps(model, inputs, targets, layer)  # a target may know which images it is about

        def maps(start: int, stop: int) -> Tensor:
            wanted = targets[start:stop] if isinstance(targets, Tensor) else targets
            return self.for_rows(start, stop)._maps(model, inputs[start:stop], wanted, layer)

        return self.batches.map(maps, len(inputs), inputs)

    def for_rows(self, start: int, stop: int) -> Self:
        """Return the explainer for the images from number `start` up to `stop` of a batch."""
        return self

    def _maps(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        return self.maps_of(tap_layers(model, layer, inputs), targets)

    def maps_of(self, tapped: Tapped, targets: Targets = None) -> Tensor:
        """Return the maps (B, H, W) in [0, 1] of a forward pass: resized to the input, normalized, averaged over the layers.

        Several explainers may take their maps from one pass.
        """
        maps = [normalize_maps(resize_maps(m, tapped.image_size)) for m in self.raw_maps(tapped, targets)]
        return maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)

    def raw_maps(self, tapped: Tapped, targets: Targets = None, create_graph: bool = False) -> list[Tensor]:
        """Return the map (B, h, w) of each tapped layer as the formula gives it.

        Args:
            tapped: a forward pass; one with `train=True` where the maps are to be differentiated.
            targets: the classes to explain, as in `Explainer.__call__`.
            create_graph: make the maps differentiable with respect to the model's parameters, second order included.
        """
        activations = gradients = tapped.activations
        if self.needs_gradient:
            with torch.enable_grad():
                score = resolve_score(targets, tapped.output)
                scores = score(tapped.output, torch.arange(len(tapped.raw[0]), device=tapped.raw[0].device))
                gradients = tapped.gradients(scores, create_graph)
        if not create_graph:
            activations, gradients = [a.detach() for a in activations], [g.detach() for g in gradients]
        with torch.autocast(activations[0].device.type, enabled=False):  # half precision is too coarse for these sums
            wide = [(at_least_float32(a), at_least_float32(g)) for a, g in zip(activations, gradients)]
            return [self.reduce(self.contributions(number, a, g)) for number, (a, g) in enumerate(wide)]

    def contributions(self, number: int, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the contribution (B, C, h, w) of each channel at each place of the tapped layer with this number."""
        return self.function(activations, gradients)


def summed(contributions: Tensor) -> Tensor:
    """Return the positive part (B, h, w) of the sum over channels."""
    return contributions.sum(1).relu()


def principal(contributions: Tensor, center: bool = False) -> Tensor:
    """Return the positive part (B, h, w) of contributions (B, C, h, w) projected on their first principal direction.

    With the contributions as a matrix M of (hw, C), that is M v for the first right singular vector v, its sign chosen so the
    map's sum is positive. `center=True` subtracts each channel's mean first; the sign is then that of the correlation
    with the channels' sum.
    """
    check_finite(contributions, "the activations or gradients", "is the model finite there?")
    matrix = contributions.flatten(2).transpose(1, 2)  # (B, hw, C)
    scale = _scale(matrix)
    matrix = matrix / scale
    channel_sum = matrix.sum(2)
    if center:
        matrix = matrix - matrix.mean(1, keepdim=True)
    # The eigenvectors of the smaller Gram matrix hold the same direction at a fraction of the cost of an SVD.
    if matrix.shape[1] <= matrix.shape[2]:
        values, vectors = torch.linalg.eigh(matrix @ matrix.mT)  # (B, hw, hw)
        projection = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
    else:
        vectors = torch.linalg.eigh(matrix.mT @ matrix).eigenvectors  # (B, C, C)
        projection = (matrix @ vectors[:, :, -1:])[:, :, 0]
    reference = channel_sum - channel_sum.mean(1, keepdim=True) if center else torch.ones_like(projection)
    sign = torch.where((projection * reference).sum(1, keepdim=True) < 0, -1.0, 1.0)
    return (sign * projection * scale[:, 0]).relu().unflatten(1, contributions.shape[2:])


def _scale(matrix: Tensor) -> Tensor:
    """Return a power of two (B, 1, 1) by which values are divided whose squares would not fit their type; else 1."""
    largest = matrix.detach().abs().amax((1, 2), keepdim=True)
    power = torch.exp2(torch.frexp(largest).exponent.clamp(-120, 120).to(largest))
    return torch.where((largest > 1e-12) & (largest < 1e12) | (largest == 0), 1.0, power)


Smooth = Literal["eigen"]


def cam(
    name: str, differentiable: bool = True, needs_gradient: bool = True
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function of activations and gradients as an explainer; its keyword-only parameters are the options.

    One more option comes with each: `smooth="eigen"` takes the first principal component of the contributions (`principal`,
    centered) instead of their sum. Such a map cannot be trained on.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def factory(smooth: Smooth | None = None, **options: Any) -> CAM:
            if smooth not in (None, "eigen"):
                raise SightlineError(f"smooth is {smooth!r}; accepted are None and 'eigen'")
            reduce = partial(principal, center=True) if smooth else summed
            return CAM(partial(function, **options), needs_gradient, reduce)

        options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        smooth = inspect.Parameter("smooth", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Smooth | None)
        factory.__signature__ = inspect.Signature([*options, smooth])  # type: ignore[attr-defined]
        meaning = (
            "`eigen` takes the first principal component of the contributions instead of their sum; no training then."
        )
        factory.__doc__ = with_options(function, {"smooth": meaning})
        EXPLAINERS.register(name, differentiable=differentiable, needs_gradient=needs_gradient, needs_layer=True)(
            factory
        )
        return function

    return decorate


@cam("gradcam")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient (Selvaraju et al. 2017).

    References:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (ICCV 2017),
            section 3.
    """
    weights = gradients.mean((2, 3), keepdim=True)
    return weights * activations


@cam("gradcam++")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor, *, eps: float = 0.0) -> Tensor:
    """Grad-CAM++: positive gradients weighted by w = g^2 / (2 g^2 + (sum A) g^3) (Chattopadhyay et al. 2018).

    w is 0 where its denominator is 0; `eps` is added to the denominator, as some libraries do.

    Args:
        activations: Activations A (B, C, h, w) of the target layer.
        gradients: Gradients (B, C, h, w) of the explained score with respect to A.
        eps: What is added to the denominator of w, as some libraries do; >= 0.

    Returns:
        What each channel contributes at each place, (B, C, h, w).

    References:
        Chattopadhyay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks"
            (WACV 2018), section 3.
    """
    check_non_negative(eps=eps)
    denominator = 2 * gradients**2 + activations.sum((2, 3), keepdim=True) * gradients**3 + eps
    alphas = gradients**2 / torch.where(denominator != 0, denominator, torch.ones_like(denominator))
    weights = (alphas * gradients.relu()).sum((2, 3), keepdim=True)
    return weights * activations


@cam("xgradcam")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM: channels weighted by their gradients, averaged with the activations as weights (Fu et al. 2020).

    A channel whose activations cancel out gets the weight 0.

    References:
        Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs" (BMVC 2020), section 3.
    """
    total = activations.sum((2, 3), keepdim=True)
    cancels = total.abs() <= 1e-12 * activations.abs().sum((2, 3), keepdim=True)
    weights = (activations * gradients).sum((2, 3), keepdim=True) / torch.where(cancels, torch.ones_like(total), total)
    return weights.masked_fill(cancels, 0) * activations


@cam("hirescam")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: gradients times activations, place by place (Draelos & Carin 2020).

    References:
        Draelos, Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks" (2020),
            the definition of HiResCAM.
    """
    return gradients * activations


@cam("layercam")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: positive gradients times activations, place by place (Jiang et al. 2021).

    References:
        Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization" (IEEE TIP 2021), section III.
    """
    return gradients.relu() * activations


@EXPLAINERS.register("eigencam", needs_layer=True)
def eigencam(*, center: bool = False) -> CAM:
    """Eigen-CAM: the activations' projection on their first principal direction, regardless of the class (Muhammad & Yeasin
    2020).

    Args:
        center: subtract the mean of each channel first; see `principal`.

    References:
        Muhammad, Yeasin, "Eigen-CAM: Class Activation Map using Principal Components" (IJCNN 2020), the projection on the
            first principal component.
    """
    return CAM(plain_activations, needs_gradient=False, reduce=partial(principal, center=center))


def plain_activations(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the activations unchanged."""
    return activations
