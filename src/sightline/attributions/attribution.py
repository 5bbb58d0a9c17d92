"""Attributions to pixels by gradients and by rules that replace them, computed by Captum.

Captum calls a function that returns one scalar per input, and repeats the inputs as a method needs them. Each call here also
passes `image_index`: the image that each input was made from. Captum repeats it in the order of the inputs, so a score
always knows which image a copy belongs to.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice
from sightline._core.internal_batches import InternalBatches
from sightline._core.optional import requires_extra
from sightline._core.tensors import at_least_float32, check_finite
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, Sign, normalize_maps, signed_to_map
from sightline.explainers.precision import in_float32
from sightline.explainers.registry import EXPLAINERS, with_options
from sightline.network.layers import LayerSelection
from sightline.network.targets import Score, Targets, resolve_score

Baseline = float | Tensor
Precise = Literal["always", "unless_asked"]
OPTIONS = {  # what `_common` takes
    "sign": "How signed attributions become a map: `positive` keeps what increases the score, `absolute` what changes it.",
    "raw": "Return the attributions (B, C, H, W) with their signs instead of maps.",
    "internal_batch_size": "Number of images in one call of the model; null chooses a number that fits the memory.",
}


@dataclass(frozen=True)
class AttributionRequest:
    """What a method explains: the scores of a model, by its inputs.

    Attributes:
        model: in eval mode.
        inputs: (N, C, H, W), as the model takes them but float32 at least; some images of the batch.
        image_index: (N,) int64, which images of the batch they are.
        score: from the model's output to scalars.
        layer: the target layer, for the methods that have one.
        rows: how many inputs may go through the model at once.
        dtype: the type in which the model takes its inputs.
    """

    model: nn.Module
    inputs: Tensor
    image_index: Tensor
    score: Score
    layer: LayerSelection
    rows: int
    dtype: torch.dtype

    def forward(self, inputs: Tensor, image_index: Tensor) -> Tensor:
        """Return the scores (M,) of M inputs that were made from the images `image_index`."""
        given = inputs.to(self.dtype, copy=True)  # the model may work in place
        return at_least_float32(self.score(self.model(given), image_index))

    @property
    def copies(self) -> int:
        """How many copies of every image may go through the model at once."""
        return max(1, self.rows // len(self.inputs))

    def input_leaf(self) -> Tensor:
        """Return a detached copy of the inputs that records gradients."""
        return self.inputs.detach().clone().requires_grad_()

    def baseline(self, value: Baseline) -> Tensor:
        """Return the value that replaces a missing pixel as (1, C, H, W), from a number or a tensor that broadcasts to it."""
        shape = (1, *self.inputs.shape[1:])
        baseline = torch.as_tensor(value, dtype=self.inputs.dtype, device=self.inputs.device)
        if not baseline.isfinite().all():
            raise SightlineError(
                "baseline holds NaN or infinity; expected finite values in the units of the model's input"
            )
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
            yield replace(self, inputs=image, image_index=index)


class Attribution(Explainer):
    """A method that gives every input value its share in the score.

    Args:
        function: from a request to attributions (N, C, H, W).
        sign: how signed attributions become a map, after they are summed over the color channels: `"positive"` keeps what
            increases the score, `"absolute"` the evidence for or against it; None takes the largest magnitude of
            the channels, for methods whose values are sensitivities and not shares.
        raw: return the attributions (B, C, H, W) themselves, with their signs, instead of maps.
        internal_batch_size: images in one call to the model, after the pass over the batch that finds the predictions;
            None chooses.
        precise: "always" = compute in float32 at least, regardless of the model, autocast and `precision`; "unless_asked" = but
            in bfloat16 where `precision="bf16"` asks for it; None = as they have it.
    """

    def __init__(
        self,
        function: Callable[[AttributionRequest], Tensor],
        sign: Sign | None,
        raw: bool = False,
        internal_batch_size: int | None = None,
        precise: Precise | None = None,
    ) -> None:
        if sign is not None:
            check_choice(Sign, sign=sign)
        self.function = function
        self.sign = sign
        self.raw = raw
        self.precise = precise
        self.batches = InternalBatches(internal_batch_size)

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1], or attributions (B, C, H, W) with `raw`."""
        if self.precise:
            with in_float32(model, inputs, targets, layer, self.precise == "unless_asked") as precise:
                return self._explain(*precise)
        return self._explain(model, inputs, targets, layer)

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        image_index = torch.arange(len(inputs), device=inputs.device)
        output = model(inputs)
        score = resolve_score(targets, output)
        check_finite(score(output, image_index), "the model's scores", "is the model finite there?")
        dtype, inputs = inputs.dtype, at_least_float32(inputs)

        def attributions(rows: int) -> Tensor:
            parts = [
                self.function(AttributionRequest(model, some, which, score, layer, rows, dtype))
                for some, which in zip(inputs.split(rows), image_index.split(rows))
            ]
            return torch.cat(parts).detach()

        with _captum_quiet():
            result = self.batches.fit(attributions, inputs)
        result = result.to(at_least_float32(inputs).dtype)  # Captum's own sums are float32
        return result if self.raw else normalize_maps(self._map(result))

    def _map(self, attributions: Tensor) -> Tensor:
        if self.sign is None:
            return attributions.abs().amax(1)
        return signed_to_map(attributions.sum(1), self.sign)


@contextmanager
def _captum_quiet() -> Iterator[None]:
    """Captum warns of the hooks it sets and takes off again, here on a copy of the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Setting (forward, )?backward hooks")
        yield


def attribution(
    name: str,
    signed: bool = True,
    needs_gradient: bool = True,
    needs_layer: bool = False,
    precise: Precise | None = None,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function of a request as an explainer.

    Its options are the function's keyword-only parameters, `sign`, `raw` and `internal_batch_size`. `precise` is for functions
    that half precision spoils: "always" for rules for gradients, "unless_asked" for small differences of scores in many passes.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def factory(raw: bool = False, internal_batch_size: int | None = None, **options: Any) -> Attribution:
            sign = options.pop("sign", "positive") if signed else None
            computed = partial(_with_captum, name, function, **options)
            return Attribution(computed, sign, raw, internal_batch_size, precise)

        options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        options += inspect.signature(_common).parameters.values()
        factory.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p for p in options if signed or p.name != "sign"]
        )
        factory.__doc__ = with_options(function, {name: OPTIONS[name] for name in OPTIONS if signed or name != "sign"})
        EXPLAINERS.register(name, needs_gradient=needs_gradient, needs_layer=needs_layer)(factory)
        return function

    return decorate


def _with_captum(name: str, function: Callable[..., Tensor], request: AttributionRequest, **options: Any) -> Tensor:
    """Call an attribution, which imports Captum when it runs."""
    with requires_extra("captum", f"the explainer {name!r}"):
        return function(request, **options)


def _common(*, sign: Sign = "positive", raw: bool = False, internal_batch_size: int | None = None) -> None:
    """Return the options that every attribution has."""
