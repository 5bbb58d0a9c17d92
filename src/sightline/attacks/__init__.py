"""Images that differ little, and that a model takes for something else.

Each attack takes images (B, C, H, W) in [0, 1] and returns images in [0, 1]; the model's normalisation happens inside. The
model is used in eval mode, every module's flag is restored, and no gradient but that of the images is computed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import check_images
from sightline.errors import SightlineError, unknown_name
from sightline.network.features import DeepFeatures
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.network.tap import evaluating, logits_of, unwrap
from sightline.network.targets import resolve_targets

Distance = Literal["euclidean", "cosine"]
Stop = Literal["converged", "zero gradient", "iterations"]
STOPS: tuple[Stop, ...] = ("converged", "zero gradient", "iterations")

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euclidean": lambda found, wanted: torch.linalg.vector_norm(found - wanted, dim=1),
    "cosine": lambda found, wanted: 1 - F.cosine_similarity(found, wanted, dim=1),
}


# ---- single steps ----


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int | None = None,
    *,
    eps: float,
    weights: Tensor | None = None,
    input_spec: InputSpec | None = None,
) -> Tensor:
    """Fast gradient sign: every pixel goes `eps` up or down, so that the cross-entropy grows (Goodfellow et al. 2015).

    A gradient of 0 counts as positive, as "Improving Network Interpretability via Explanation Consistency Evaluation" has it
    (Eq. 7); its images, attacked where a map is low (Eq. 1), come from `weights=1 - maps`.

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        labels: the classes to move away from: (B,), one index, or None = the predicted ones.
        eps: the change of a pixel, in [0, 1].
        weights: (B, H, W) factors on the change of each pixel; None = 1.
        input_spec: normalises the images inside; None where the model itself takes [0, 1].

    Returns:
        Images (B, C, H, W) in [0, 1], float32 at least.

    Raises:
        SightlineError: images outside [0, 1], or another argument that is not as above.
    """
    with _attacked(model, images, input_spec) as (pixels, inputs_of):
        gradient = _ascent(model, pixels, inputs_of, labels)
        return sign_step(pixels, gradient, eps, weights)


def ascent(
    model: nn.Module, images: Tensor, labels: Tensor | int | None = None, *, input_spec: InputSpec | None = None
) -> Tensor:
    """The gradient (B, C, H, W) of each image's cross-entropy, for steps of many sizes; arguments as of `fgsm`."""
    with _attacked(model, images, input_spec) as (pixels, inputs_of):
        return _ascent(model, pixels, inputs_of, labels)


def sign_step(pixels: Tensor, gradient: Tensor, eps: float, weights: Tensor | None = None) -> Tensor:
    """The step of `fgsm` along a gradient (B, C, H, W) that is known: pixels (B, C, H, W) in [0, 1]."""
    change = eps * torch.where(gradient < 0, -1.0, 1.0).to(pixels)
    if weights is not None:
        if weights.shape != (len(pixels), *pixels.shape[2:]):
            raise SightlineError(
                f"weights have shape {tuple(weights.shape)}; expected {(len(pixels), *pixels.shape[2:])}, one a pixel"
            )
        change = change * weights[:, None].to(pixels)
    return (pixels + change).clamp(0, 1)


def fgv(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int | None = None,
    *,
    eps: float,
    input_spec: InputSpec | None = None,
) -> Tensor:
    """Fast gradient value: a step along the gradient itself, not its sign (Rozsa et al. 2016).

    The step is scaled so that the largest change of an image is `eps`; an image without a gradient stays as it is. The other
    arguments are those of `fgsm`.
    """
    with _attacked(model, images, input_spec) as (pixels, inputs_of):
        return (pixels + _scaled(_ascent(model, pixels, inputs_of, labels), eps)).clamp(0, 1)


def hot_cold(
    model: nn.Module,
    images: Tensor,
    hot: Tensor | int | None = None,
    cold: Tensor | int | None = None,
    *,
    eps: float,
    input_spec: InputSpec | None = None,
) -> Tensor:
    """Hot/cold: a step towards one class and away from another, by their logits h (Rozsa et al. 2016).

    The direction is the gradient of <h(x), w>, with w = |h| at the hot class, -h at the cold one and 0 elsewhere, held fixed.
    It is scaled so that the largest change of an image is `eps`; an image without a gradient stays as it is.

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        hot: the classes to move to: (B,), one index, or None = the likeliest that is not cold.
        cold: the classes to move away from, likewise; None = the predicted ones.
        eps: the largest change of a pixel, in [0, 1].
        input_spec: normalises the images inside; None where the model itself takes [0, 1].

    Returns:
        Images (B, C, H, W) in [0, 1], float32 at least.

    Raises:
        SightlineError: hot and cold are one class, images lie outside [0, 1], or another argument is not as above.
    """

    def score(logits: Tensor) -> Tensor:
        held = logits.detach()
        away = resolve_targets(cold, held)[:, None]
        to = resolve_targets(hot, held.scatter(1, away, -torch.inf))[:, None]
        if same := (to == away).nonzero()[:, 0].tolist():
            raise SightlineError(f"hot and cold are the same class for images {same[:10]} of the batch")
        return held.gather(1, to).abs() * logits.gather(1, to) - held.gather(1, away) * logits.gather(1, away)

    with _attacked(model, images, input_spec) as (pixels, inputs_of):
        return (pixels + _scaled(_gradient(model, pixels, inputs_of, score), eps)).clamp(0, 1)


# ---- LOTS ----


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
    target F_t is above tau, step down the gradient of ||F_t - F_s||^2 / 2, scaled so that the largest change of an image
    is alpha, and clamp to [0, 1]. An image that has converged leaves the batch.

    Args:
        model: any network; where `layer` names one of its modules, it need not be a classifier.
        images: (B, C, H, W) in [0, 1].
        target: features (D,) or (B, D); reference images (C, H, W) or (B, C, H, W) in [0, 1], whose features are taken; or
            `"zero"` for features of zero.
        layer: where features are taken: None = the input of the last linear layer; `"logits"`; or a layer, for its output.
        input_spec: normalises the images inside; None where the model itself takes [0, 1].
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
    with _attacked(model, images, input_spec) as (pixels, inputs_of):
        wanted = _wanted(target, features, pixels, input_spec, calls)
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
                largest = _largest(gradient)
                done = (distances <= tau) | ~(largest > 0)
                if done.any():  # the one wait for the device in an iteration
                    leave(done, distances.where(largest.isfinite(), torch.nan), step, "zero gradient")
                    on = ~done
                    running, here, there, gradient = running[on], here[on], there[on], gradient[on]
                    if not len(running):
                        break
                here = (here - _scaled(gradient, alpha)).clamp(0, 1)
            if len(running):
                found = features(inputs_of(here))
                everyone = torch.ones_like(running, dtype=torch.bool)
                leave(everyone, DISTANCES[distance](found, there), iterations, "iterations")
            return steps[start:stop]

        calls.map(descend, len(pixels), pixels)
    if not reached.isfinite().all():
        bad = (~reached.isfinite()).nonzero().flatten().tolist()
        raise SightlineError(f"the features or gradients of images {bad[:10]} of the batch are NaN or infinite")
    return LOTSResult(out, steps, reached, [STOPS[code] for code in stopped.tolist()])


def check_lots_options(iterations: int, tau: float, alpha: float, distance: str, target: Tensor | str) -> None:
    """Refuse what LOTS cannot run with; see `lots`."""
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise SightlineError(f"iterations is {iterations!r}; expected a whole number of at least 1")
    if not tau >= 0:
        raise SightlineError(f"tau is {tau}; expected a distance of at least 0")
    if not 0 < alpha <= 1:
        raise SightlineError(
            f"alpha is {alpha}; expected the largest change of a pixel in a step, above 0 and at most 1"
        )
    if distance not in DISTANCES:
        raise unknown_name("distance", distance, DISTANCES)
    if distance == "cosine" and isinstance(target, str) and target == "zero":
        raise SightlineError("distance is 'cosine' and target 'zero': nothing has an angle to zero; use 'euclidean'")


def _wanted(
    target: Tensor | str, features: DeepFeatures, pixels: Tensor, input_spec: InputSpec | None, batches: InternalBatches
) -> Tensor:
    """The target's features (B, D); for `"zero"` (B, 1), which is subtracted as well."""
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
        inputs_of = _entry(rows, input_spec, "target")
        rows = batches.map(lambda start, stop: features(inputs_of(rows[start:stop])), len(rows), rows)
    elif rows.shape[1] != (size := features(_entry(pixels, input_spec)(pixels[:1])).shape[1]):
        raise SightlineError(f"target has {rows.shape[1]} features; the model has {size} ({features.place})")
    if len(rows) not in (1, len(pixels)):
        raise SightlineError(f"target has {len(rows)} rows; expected 1, or one for each of the {len(pixels)} images")
    return rows.expand(len(pixels), -1)


# ---- what all of them share ----


def check_pixels(images: Tensor, argument: str = "images") -> None:
    """Refuse images outside [0, 1]."""
    low, high = torch.aminmax(images.detach())
    if low < -1e-4 or high > 1 + 1e-4:
        raise SightlineError(
            f"{argument} range over [{low:.3g}, {high:.3g}]; pixels are changed here, so they must lie in [0, 1] "
            "(give the model's normalisation as input_spec; it happens inside)"
        )


@contextmanager
def _attacked(
    model: nn.Module, images: Tensor, input_spec: InputSpec | None
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """The model in eval mode; a copy of the pixels, float32 at least; and what turns such pixels into the model's input."""
    inputs_of = _entry(images, input_spec)
    with torch.inference_mode(False), torch.no_grad(), evaluating(unwrap(model)):
        yield images.detach().clone().to(torch.promote_types(images.dtype, torch.float32)), inputs_of


def _entry(images: Tensor, input_spec: InputSpec | None, argument: str = "images") -> Callable[[Tensor], Tensor]:
    """What turns pixels in [0, 1] into the model's input, in the images' own type, without checks that wait for the device.

    Raises:
        SightlineError: these images are no such pixels.
    """
    check_images(images, argument)
    check_pixels(images, argument)
    if input_spec is None:
        return lambda pixels: pixels.to(images.dtype)
    input_spec.normalize(images[:1])  # refuses another number of channels
    with torch.inference_mode(False):
        wide = torch.promote_types(images.dtype, torch.float32)
        mean, std = (
            torch.tensor(values, dtype=wide, device=images.device)[:, None, None]
            for values in (input_spec.mean, input_spec.std)
        )
    return lambda pixels: ((pixels - mean) / std).to(images.dtype)


def _gradient(
    model: nn.Module, pixels: Tensor, inputs_of: Callable[[Tensor], Tensor], score: Callable[[Tensor], Tensor]
) -> Tensor:
    """The gradient (B, C, H, W) of each image's score of its logits."""
    leaf = pixels.detach().requires_grad_()
    with torch.enable_grad():
        logits = logits_of(unwrap(model)(inputs_of(leaf)))
        total = score(logits.to(torch.promote_types(logits.dtype, torch.float32))).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    if not gradient.isfinite().all():
        bad = (~gradient.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise SightlineError(f"the gradients of images {bad[:10]} of the batch are NaN or infinite")
    return gradient


def _ascent(
    model: nn.Module, pixels: Tensor, inputs_of: Callable[[Tensor], Tensor], labels: Tensor | int | None
) -> Tensor:
    """The gradient of each image's cross-entropy."""
    return _gradient(
        model,
        pixels,
        inputs_of,
        lambda logits: F.cross_entropy(logits, resolve_targets(labels, logits), reduction="none"),
    )


def _largest(gradient: Tensor) -> Tensor:
    """The largest absolute value (B,) in each image's gradient."""
    return gradient.abs().amax((1, 2, 3))


def _scaled(gradient: Tensor, size: float) -> Tensor:
    """The gradient scaled so that the largest change of each image is `size`; zeros stay zeros."""
    largest = _largest(gradient)
    return gradient * torch.where(largest > 0, size / largest, torch.zeros_like(largest))[:, None, None, None]
