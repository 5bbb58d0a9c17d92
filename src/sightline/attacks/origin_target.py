"""LOTS, layerwise origin-target synthesis: change images step by step until their features are those of a target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_count, check_fraction, check_non_negative
from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import check_finite
from sightline.attacks.steps import attacked, largest_change, pixels_to_inputs, scaled_to
from sightline.errors import SightlineError, unknown_name
from sightline.network.features import DeepFeatures
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice

Distance = Literal["euclidean", "cosine"]
Stop = Literal["converged", "zero gradient", "iterations"]
STOPS: tuple[Stop, ...] = ("converged", "zero gradient", "iterations")

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euclidean": lambda found, wanted: torch.linalg.vector_norm(found - wanted, dim=1),
    "cosine": lambda found, wanted: 1 - F.cosine_similarity(found, wanted, dim=1),
}


@dataclass(frozen=True)
class LOTSResult:
    """What LOTS made of each image, and how far it got.

    Attributes:
        images: (B, C, H, W) in [0, 1], float32 at least.
        iterations: (B,) int64, steps that were taken.
        distances: (B,) from the features of `images` to the target.
        stopped: for each image, why it went no further: `"converged"`: the distance is at most tau; `"zero gradient"`: no
            pixel changes the features any more; `"iterations"`: all were used.
    """

    images: Tensor
    iterations: Tensor
    distances: Tensor
    stopped: list[Stop]


def lots(
    model: nn.Module,
    images: Tensor,
    target: Tensor | Literal["zero"] = "zero",
    *,
    layer: LayerChoice | None = None,
    input_spec: InputSpec | None = None,
    iterations: int = 500,
    tau: float = 0.1,
    alpha: float = 1 / 255,
    distance: Distance = "euclidean",
    internal_batch_size: int | None = None,
) -> LOTSResult:
    """LOTS: change images step by step until a model sees the target's features in them (Rozsa et al. 2017).

    Algorithm 1 of "Visualization of Deep Features with Grad-CAM and LOTS": while the distance of the features F_s to the
    target F_t is above tau, step down the gradient of ||F_t - F_s||^2 / 2, scaled so the largest change of an image
    is alpha, and clamp to [0, 1]. An image that has converged leaves the batch.

    Args:
        model: any network; where `layer` names one of its modules, it need not be a classifier.
        images: (B, C, H, W) in [0, 1].
        target: features (D,) or (B, D); reference images (C, H, W) or (B, C, H, W) in [0, 1], whose features are taken; or
            `"zero"` for features of zero.
        layer: where features are taken: None = the input of the last linear layer; `"logits"`; or a layer, for its output.
        input_spec: normalizes the images inside; None where the model itself takes [0, 1].
        iterations: the most steps an image may take.
        tau: the distance at which an image has converged.
        alpha: the largest change of a pixel in one step, in [0, 1].
        distance: which one is compared with tau: `"euclidean"` or `"cosine"` (1 - cosine); the loss is Euclidean in both cases.
        internal_batch_size: the most images in one call of the model; None chooses.

    Raises:
        SightlineError: images outside [0, 1], or another argument that is not as above; features or gradients that are not
            finite.
    """
    check_lots_options(iterations, tau, alpha, distance, target)
    features, calls = DeepFeatures(model, layer), InternalBatches(internal_batch_size)
    with attacked(model, images, input_spec) as (pixels, inputs_of):
        wanted = _target_features(target, features, pixels, input_spec, calls)
        out = pixels.clone()
        steps = torch.full((len(pixels),), iterations, device=pixels.device)
        reached = torch.empty(len(pixels), dtype=torch.promote_types(pixels.dtype, torch.float32), device=pixels.device)
        stopped = torch.empty_like(steps)

        def descend(start: int, stop: int) -> Tensor:
            """Change the images from start up to stop, and return their numbers of steps."""
            running, here = torch.arange(start, stop, device=pixels.device), pixels[start:stop]
            there = wanted[start:stop]

            def leave(done: Tensor, distances: Tensor, step: int, otherwise: Stop) -> None:
                rows = running[done]
                out[rows], steps[rows], reached[rows] = here[done], step, distances[done].to(reached)
                stopped[rows] = torch.where(distances[done] <= tau, 0, STOPS.index(otherwise))

            for step in range(iterations):
                leaf = here.detach().requires_grad_()
                with torch.enable_grad():
                    found = features(inputs_of(leaf))
                    loss = 0.5 * (found - there).square().sum()
                (gradient,) = torch.autograd.grad(loss, leaf)
                distances = DISTANCES[distance](found.detach(), there)
                largest = largest_change(gradient)
                done = (distances <= tau) | ~(largest > 0)
                if done.any():  # the one wait for the device in an iteration
                    leave(done, distances.where(largest.isfinite(), torch.nan), step, "zero gradient")
                    on = ~done
                    running, here, there, gradient = running[on], here[on], there[on], gradient[on]
                    if not len(running):
                        break
                here = (here - scaled_to(gradient, alpha)).clamp(0, 1)
            if len(running):
                found = features(inputs_of(here))
                everyone = torch.ones_like(running, dtype=torch.bool)
                leave(everyone, DISTANCES[distance](found, there), iterations, "iterations")
            return steps[start:stop]

        calls.map(descend, len(pixels), pixels)
    check_finite(reached, "the features or gradients")
    return LOTSResult(out, steps, reached, [STOPS[code] for code in stopped.tolist()])


def check_lots_options(iterations: int, tau: float, alpha: float, distance: str, target: Tensor | str) -> None:
    """Raise if `lots` cannot run with these options."""
    check_count(iterations=iterations)
    check_non_negative(tau=tau)
    check_fraction("(0, 1]", alpha=alpha)
    if distance not in DISTANCES:
        raise unknown_name("distance", distance, DISTANCES)
    if distance == "cosine" and isinstance(target, str) and target == "zero":
        raise SightlineError("distance is 'cosine' and target 'zero': nothing has an angle to zero; use 'euclidean'")


def _target_features(
    target: Tensor | str, features: DeepFeatures, pixels: Tensor, input_spec: InputSpec | None, batches: InternalBatches
) -> Tensor:
    """Return the target's features (B, D); for `"zero"` (B, 1), which is subtracted as well."""
    if isinstance(target, str) and target == "zero":
        return pixels.new_zeros(len(pixels), 1)
    if not isinstance(target, Tensor) or target.ndim not in (1, 2, 3, 4):
        came = f"shape {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
        raise SightlineError(
            f"target is {came}; expected 'zero', features (D,) or (B, D), or reference images (C, H, W) or (B, C, H, W)"
        )
    rows = target.detach().clone().to(pixels.device)
    if target.ndim in (1, 3):
        rows = rows[None]
    if rows.ndim == 4:
        inputs_of = pixels_to_inputs(rows, input_spec, "target")
        rows = batches.map(lambda start, stop: features(inputs_of(rows[start:stop])), len(rows), rows)
    elif rows.shape[1] != (size := features(pixels_to_inputs(pixels, input_spec)(pixels[:1])).shape[1]):
        raise SightlineError(f"target has {rows.shape[1]} features; the model has {size} ({features.place})")
    if len(rows) not in (1, len(pixels)):
        raise SightlineError(f"target has {len(rows)} rows; expected 1, or one for each of the {len(pixels)} images")
    return rows.expand(len(pixels), -1)
