"""What all attacks share: pixels that become inputs of the model, gradients, and the sizes of steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32, check_finite, check_pixels
from sightline.inference.fastest import fastest
from sightline.network.input_spec import InputSpec
from sightline.network.logits import logits_of
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap
from sightline.network.targets import resolve_targets


@contextmanager
def attacked(
    model: nn.Module, images: Tensor, input_spec: InputSpec | None
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Put the model in eval mode; yield a copy of the pixels, float32 at least, and the function from pixels to inputs."""
    inputs_of = pixels_to_inputs(images, input_spec)
    model = unwrap(model)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), fastest(model, images):
        yield at_least_float32(images.detach().clone()), inputs_of


def pixels_to_inputs(
    images: Tensor, input_spec: InputSpec | None, argument: str = "images"
) -> Callable[[Tensor], Tensor]:
    """Return the function from pixels in [0, 1] to the model's input, in the type of the images.

    The function itself checks nothing, so it never waits for the device.

    Raises:
        SightlineError: the images are not a batch (B, C, H, W) in [0, 1].
    """
    check_pixels(images, argument)
    if input_spec is None:
        return lambda pixels: pixels.to(images.dtype)
    input_spec.normalize(images[:1])  # rejects another number of channels
    with torch.inference_mode(False):
        like = at_least_float32(images.new_empty(0))
        mean, std = (like.new_tensor(values)[:, None, None] for values in (input_spec.mean, input_spec.std))
    return lambda pixels: ((pixels - mean) / std).to(images.dtype)


def score_gradient(
    model: nn.Module, pixels: Tensor, inputs_of: Callable[[Tensor], Tensor], score: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the gradient (B, C, H, W) of each image's score, a function of its logits."""
    leaf = pixels.detach().requires_grad_()
    with torch.enable_grad():
        logits = logits_of(unwrap(model)(inputs_of(leaf)))
        total = score(at_least_float32(logits)).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    check_finite(gradient, "the gradients")
    return gradient


def cross_entropy_gradient(
    model: nn.Module, pixels: Tensor, inputs_of: Callable[[Tensor], Tensor], labels: Tensor | int | None
) -> Tensor:
    """Return the gradient (B, C, H, W) of each image's cross-entropy."""
    return score_gradient(
        model,
        pixels,
        inputs_of,
        lambda logits: F.cross_entropy(logits, resolve_targets(labels, logits), reduction="none"),
    )


def largest_change(gradient: Tensor) -> Tensor:
    """Return the largest absolute value (B,) in each image's gradient."""
    return gradient.abs().amax((1, 2, 3))


def scaled_to(gradient: Tensor, size: float) -> Tensor:
    """Return the gradient scaled to a largest change of `size` per image; zeros stay zeros."""
    largest = largest_change(gradient)
    return gradient * torch.where(largest > 0, size / largest, torch.zeros_like(largest))[:, None, None, None]
