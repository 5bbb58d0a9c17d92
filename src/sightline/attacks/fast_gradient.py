"""Attacks of a single step along a gradient: FGSM, FGV and hot/cold."""

import torch
from torch import Tensor, nn

from sightline._core.checks import check_fraction
from sightline._core.tensors import check_finite, check_shape
from sightline.attacks.steps import attacked, cross_entropy_gradient, scaled_to, score_gradient
from sightline.errors import SightlineError
from sightline.network.input_spec import InputSpec
from sightline.network.targets import resolve_targets


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int | None = None,
    *,
    eps: float,
    weights: Tensor | None = None,
    input_spec: InputSpec | None = None,
) -> Tensor:
    """Fast gradient sign: every pixel goes `eps` up or down, so the cross-entropy grows (Goodfellow et al. 2015).

    A gradient of 0 counts as positive, as "Improving Network Interpretability via Explanation Consistency Evaluation" has it
    (Eq. 7); its images, attacked where a map is low (Eq. 1), come from `weights=1 - maps`.

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        labels: the classes to move away from: (B,), one index, or None = the predicted ones.
        eps: the change of a pixel, in [0, 1].
        weights: (B, H, W) factors on the change of each pixel; None = 1.
        input_spec: normalizes the images inside; None where the model itself takes [0, 1].

    Returns:
        Images (B, C, H, W) in [0, 1], float32 at least.

    Raises:
        SightlineError: images outside [0, 1], or another argument that is not as above.
    """
    check_fraction(eps=eps)
    if weights is not None:
        check_finite(weights, "weights")
    with attacked(model, images, input_spec) as (pixels, inputs_of):
        gradient = cross_entropy_gradient(model, pixels, inputs_of, labels)
        return sign_step(pixels, gradient, eps, weights)


def ascent(
    model: nn.Module, images: Tensor, labels: Tensor | int | None = None, *, input_spec: InputSpec | None = None
) -> Tensor:
    """Return the gradient (B, C, H, W) of each image's cross-entropy, for steps of many sizes; arguments as of `fgsm`."""
    with attacked(model, images, input_spec) as (pixels, inputs_of):
        return cross_entropy_gradient(model, pixels, inputs_of, labels)


def sign_step(
    pixels: Tensor, gradient: Tensor, eps: float | Tensor, weights: Tensor | None = None, clamp: bool = True
) -> Tensor:
    """Return the step of `fgsm` along a known gradient (B, C, H, W): pixels (B, C, H, W), clamped to [0, 1] by default.

    A tensor `eps` (C, 1, 1) changes each channel by its own step.
    """
    change = eps * torch.where(gradient < 0, -1.0, 1.0).to(pixels)
    if weights is not None:
        check_shape(weights, "weights", pixels[:, 0].shape, meaning="one per pixel")
        change = change * weights[:, None].to(pixels)
    return (pixels + change).clamp(0, 1) if clamp else pixels + change


def fgv(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int | None = None,
    *,
    eps: float,
    input_spec: InputSpec | None = None,
) -> Tensor:
    """Fast gradient value: a step along the gradient itself, not its sign (Rozsa et al. 2016).

    The step is scaled so the largest change of an image is `eps`; an image without a gradient does not change. The other
    arguments are those of `fgsm`.
    """
    check_fraction(eps=eps)
    with attacked(model, images, input_spec) as (pixels, inputs_of):
        return (pixels + scaled_to(cross_entropy_gradient(model, pixels, inputs_of, labels), eps)).clamp(0, 1)


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
    It is scaled so the largest change of an image is `eps`; an image without a gradient does not change.

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        hot: the classes to move to: (B,), one index, or None = the likeliest that is not cold.
        cold: the classes to move away from, likewise; None = the predicted ones.
        eps: the largest change of a pixel, in [0, 1].
        input_spec: normalizes the images inside; None where the model itself takes [0, 1].

    Returns:
        Images (B, C, H, W) in [0, 1], float32 at least.

    Raises:
        SightlineError: hot and cold are one class, images are outside [0, 1], or another argument is not as above.
    """

    def score(logits: Tensor) -> Tensor:
        held = logits.detach()
        away = resolve_targets(cold, held)[:, None]
        to = resolve_targets(hot, held.scatter(1, away, -torch.inf))[:, None]
        if same := (to == away).nonzero()[:, 0].tolist():
            raise SightlineError(
                f"hot and cold are the same class for images {same[:10]} of the batch; give two different classes"
            )
        return held.gather(1, to).abs() * logits.gather(1, to) - held.gather(1, away) * logits.gather(1, away)

    check_fraction(eps=eps)
    with attacked(model, images, input_spec) as (pixels, inputs_of):
        return (pixels + scaled_to(score_gradient(model, pixels, inputs_of, score), eps)).clamp(0, 1)
