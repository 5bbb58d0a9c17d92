"""Attributions to pixels by gradients and by rules that replace them, computed by Captum.

Captum calls a function that returns one scalar per input, and repeats the inputs as a method needs them. Each call here also
passes `image_index`: the image that each input was made from. Captum repeats it in the order of the inputs, so a score
always knows which image a copy belongs to.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.optional import requires_extra
from sightline._core.seeding import derive_seed
from sightline._core.tensors import at_least_float32
from sightline.errors import NotDefinedError, SightlineError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.cam import gradcam, summed
from sightline.explainers.fx_modules import AFFINE, LINEAR, MOVING, Rules, ScoreModule, explicit
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.tap import Tap
from sightline.network.targets import Score, Targets, resolve_score

Sign = Literal["positive", "absolute"]
Baseline = float | Tensor


@dataclass(frozen=True)
class AttributionRequest:
    """What a method explains: the scores of a model, by its inputs.

    Attributes:
        model: in eval mode.
        inputs: (N, C, H, W), as the model takes them; some images of the batch.
        image_index: (N,) int64, which images of the batch they are.
        score: from the model's output to scalars.
        layer: the target layer, for the methods that have one.
        rows: how many inputs may go through the model at once.
    """

    model: nn.Module
    inputs: Tensor
    image_index: Tensor
    score: Score
    layer: LayerSelection
    rows: int

    def forward(self, inputs: Tensor, image_index: Tensor) -> Tensor:
        """Return the scores (M,) of M inputs that were made from the images `image_index`."""
        return self.score(self.model(inputs.clone()), image_index)  # the model may work in place

    @property
    def copies(self) -> int:
        """How many copies of every image may go through the model at once."""
        return max(1, self.rows // len(self.inputs))

    def input_leaf(self) -> Tensor:
        """The inputs as a tensor of our own that gradients may be taken with respect to."""
        return self.inputs.detach().clone().requires_grad_()

    def baseline(self, value: Baseline) -> Tensor:
        """What stands for a missing pixel (1, C, H, W), from a number or a tensor that broadcasts to that."""
        shape = (1, *self.inputs.shape[1:])
        baseline = torch.as_tensor(value, dtype=self.inputs.dtype, device=self.inputs.device)
        try:
            return baseline.expand(shape)
        except RuntimeError:
            raise SightlineError(
                f"baseline has shape {tuple(baseline.shape)}; expected a number or a tensor that broadcasts to {shape}, "
                "in the units of the model's input"
            ) from None

    def split(self) -> Iterator["AttributionRequest"]:
        """Yield the same request for each image alone."""
        for image, index in zip(self.inputs.split(1), self.image_index.split(1)):
            yield AttributionRequest(self.model, image, index, self.score, self.layer, self.rows)


class Attribution(Explainer):
    """A method that gives every input value its share in the score.

    Args:
        function: from a request to attributions (N, C, H, W).
        sign: how signed attributions become a map, after they are summed over the colour channels: `"positive"` keeps what
            speaks for the score, `"absolute"` what speaks for or against it; None takes the largest magnitude of
            the channels, for methods whose values are sensitivities and not shares.
        raw: return the attributions (B, C, H, W) themselves, with their signs, instead of maps.
        internal_batch_size: images in one call to the model, after the pass over the batch that finds the predictions;
            None chooses.
    """

    def __init__(
        self,
        function: Callable[[AttributionRequest], Tensor],
        sign: Sign | None,
        raw: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        if sign not in ("positive", "absolute", None):
            raise SightlineError(f"sign is {sign!r}; accepted are 'positive' and 'absolute'")
        InternalBatches(internal_batch_size)  # refuses a bad one
        self.function = function
        self.sign = sign
        self.raw = raw
        self.internal_batch_size = internal_batch_size

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Maps (B, H, W) in [0, 1], or attributions (B, C, H, W) with `raw`."""
        image_index = torch.arange(len(inputs), device=inputs.device)
        score = resolve_score(targets, model(inputs))

        def attributions(rows: int) -> Tensor:
            parts = [
                self.function(AttributionRequest(model, some, which, score, layer, rows))
                for some, which in zip(inputs.split(rows), image_index.split(rows))
            ]
            return torch.cat(parts).detach()

        with _captum_quiet():
            result = fitting(attributions, self.internal_batch_size, inputs)
        result = result.to(at_least_float32(inputs).dtype)  # Captum's own sums are float32
        return result if self.raw else normalize_maps(self._map(result))

    def _map(self, attributions: Tensor) -> Tensor:
        if self.sign is None:
            return attributions.abs().amax(1)
        total = attributions.sum(1)
        return total.relu() if self.sign == "positive" else total.abs()


def fitting(call: Callable[[int], Tensor], internal_batch_size: int | None, images: Tensor) -> Tensor:
    """What `call(rows)` gives, with as many images like these at once as the memory holds.

    Args:
        call: computes everything with at most `rows` images in the model at once, and can be called again.
        internal_batch_size: the number of rows. None chooses by the image size, and halves it when memory runs out.
        images: (..., H, W).
    """
    rows = InternalBatches(internal_batch_size).size(images)
    while True:
        try:
            return call(rows)
        except torch.OutOfMemoryError:
            if internal_batch_size is not None or rows == 1:
                raise
            rows //= 2


@contextmanager
def _captum_quiet() -> Iterator[None]:
    """Captum warns of the hooks it sets and takes off again, here on a copy of the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Setting (forward, )?backward hooks")
        yield


@contextmanager
def seeded(device: torch.device, *key: int | str) -> Iterator[None]:
    """Seed the global generators that a library draws from on a device, and put their state back afterwards."""
    seed = derive_seed(*key)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(seed)
        yield


def attribution(
    name: str, signed: bool = True, needs_gradient: bool = True, needs_layer: bool = False
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function of a request as an explainer.

    Its options are the function's keyword-only parameters, `sign`, `raw` and `internal_batch_size`.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def factory(raw: bool = False, internal_batch_size: int | None = None, **options: Any) -> Attribution:
            sign = options.pop("sign", "positive") if signed else None
            return Attribution(partial(_with_captum, name, function, **options), sign, raw, internal_batch_size)

        options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        options += inspect.signature(_common).parameters.values()
        factory.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p for p in options if signed or p.name != "sign"]
        )
        factory.__doc__ = function.__doc__
        EXPLAINERS.register(
            name, differentiable=False, needs_gradient=needs_gradient, needs_layer=needs_layer, pixel_space=False
        )(factory)
        return function

    return decorate


def _with_captum(name: str, function: Callable[..., Tensor], request: AttributionRequest, **options: Any) -> Tensor:
    """Call an attribution, which imports Captum when it runs."""
    with requires_extra("captum", f"the explainer {name!r}"):
        return function(request, **options)


def _common(*, sign: Sign = "positive", raw: bool = False, internal_batch_size: int | None = None) -> None:
    """The options of every attribution."""


# ---- gradients ----


@attribution("saliency", signed=False)
def saliency(request: AttributionRequest) -> Tensor:
    """Saliency: the gradient of the score with respect to the input (Simonyan et al. 2014)."""
    from captum.attr import Saliency

    captum = Saliency(request.forward)
    return captum.attribute(request.input_leaf(), abs=False, additional_forward_args=(request.image_index,))


@attribution("smoothgrad", signed=False)
def smoothgrad(request: AttributionRequest, *, samples: int = 50, noise: float = 0.15, seed: int = 0) -> Tensor:
    """SmoothGrad: the gradient averaged over noisy copies of the image (Smilkov et al. 2017).

    The signed gradients are averaged, as the paper's equation says, and the magnitude is taken of the mean.

    `samples` copies (the paper sees no gain beyond 50), with Gaussian noise of `noise` times the image's range
    (0.1 to 0.2 in the paper), the same draw for every image.
    """
    from captum.attr import NoiseTunnel, Saliency

    if samples < 1 or not noise >= 0:
        raise SightlineError(f"samples is {samples} and noise {noise}; expected at least 1 and 0")
    captum = NoiseTunnel(Saliency(request.forward))
    parts = []
    for one in request.split():  # Captum takes one noise level a call
        low, high = torch.aminmax(one.inputs)
        with seeded(one.inputs.device, seed, "smoothgrad"):
            part = captum.attribute(
                one.inputs,
                nt_samples=samples,
                nt_samples_batch_size=one.copies,
                stdevs=noise * float(high - low),
                abs=False,
                additional_forward_args=(one.image_index,),
            )
        parts.append(part)
    return torch.cat(parts)


@attribution("input_x_gradient")
def input_x_gradient(request: AttributionRequest) -> Tensor:
    """Input x gradient: every input value times the score's gradient there (Shrikumar et al. 2016)."""
    from captum.attr import InputXGradient

    return InputXGradient(request.forward).attribute(
        request.input_leaf(), additional_forward_args=(request.image_index,)
    )


@attribution("integrated_gradients")
def integrated_gradients(request: AttributionRequest, *, steps: int = 50, baseline: Baseline = 0.0) -> Tensor:
    """Integrated gradients: gradients along the line from a baseline, times the difference (Sundararajan et al. 2017).

    `steps` points of a Gauss-Legendre quadrature (Captum's; the paper finds 20 to 300 Riemann steps to be enough). The baseline
    is in the units of the model's input: 0 is the mean colour of the training images where inputs are normalised.
    """
    from captum.attr import IntegratedGradients

    if steps < 1:
        raise SightlineError(f"steps is {steps}; expected at least 1")
    return IntegratedGradients(request.forward).attribute(
        request.inputs,
        request.baseline(baseline),
        additional_forward_args=(request.image_index,),
        n_steps=steps,
        internal_batch_size=request.rows,
    )


# ---- rules in place of gradients ----


def _explicit(request: AttributionRequest, rules: Rules) -> ScoreModule:
    """A copy of the model with its score, for Captum to hook."""
    module = ScoreModule(explicit(request.model, rules), request.score)
    image, index = request.inputs[:1], request.image_index[:1]
    if not torch.allclose(module(image, index), request.forward(image, index), rtol=1e-3, atol=1e-4):
        raise NotDefinedError(
            f"{rules.method} is not defined for this model: a copy of {type(request.model).__name__} without in-place "
            "operations gives other scores"
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


@attribution("guided_backprop", signed=False)
def guided_backprop(request: AttributionRequest) -> Tensor:
    """Guided backprop: gradients that pass a ReLU only where they are positive (Springenberg et al. 2015).

    Defined for networks whose only activation is the ReLU; with any other it would be the plain gradient.
    """
    from captum.attr import GuidedBackprop

    module = _explicit(request, _GUIDED)
    return GuidedBackprop(module).attribute(request.input_leaf(), additional_forward_args=(request.image_index,))


@attribution("guided_gradcam", signed=False, needs_layer=True)
def guided_gradcam(request: AttributionRequest) -> Tensor:
    """Guided Grad-CAM: guided backprop times Grad-CAM, resized bilinearly (Selvaraju et al. 2017)."""
    gradients = guided_backprop(request)
    tapped = Tap(request.model, request.layer)(request.inputs)
    with torch.enable_grad():
        slopes = tapped.gradients(request.score(tapped.output, request.image_index))
    maps = [resize_maps(summed(gradcam(a.detach(), g)), tapped.image_size) for a, g in zip(tapped.activations, slopes)]
    return gradients * torch.stack([resize_maps(m, tapped.image_size) for m in maps]).mean(0)[:, None]


@attribution("deeplift")
def deeplift(request: AttributionRequest, *, baseline: Baseline = 0.0) -> Tensor:
    """DeepLIFT, rescale rule: shares in the score's difference from that of a baseline (Shrikumar et al. 2017).

    The baseline is in the units of the model's input: 0 is the mean colour of the training images where inputs are normalised.
    """
    from captum.attr import DeepLift

    module = _explicit(request, _DEEPLIFT)
    return DeepLift(module).attribute(
        request.input_leaf(), request.baseline(baseline), additional_forward_args=(request.image_index,)
    )


@attribution("lrp")
def lrp(request: AttributionRequest) -> Tensor:
    """Layer-wise relevance propagation, epsilon rule (Bach et al. 2015).

    Epsilon is Captum's 1e-9, as good as none: where every activation is a ReLU, the map is that of input x gradient
    (Ancona et al. 2018).
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
    return LRP(module).attribute(request.input_leaf(), additional_forward_args=(request.image_index,))
