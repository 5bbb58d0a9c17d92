"""An attention on features, fitted to be the object's mask."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sightline._core.checks import check_positive
from sightline._core.tensors import at_least_float32, check_shape
from sightline.errors import SightlineError
from sightline.guides.attention_gate import attention_loss
from sightline.heads.minimum import minimize
from sightline.heads.scaling import Scaling, as_double, check_features

CHUNK = 2**21  # numbers that are looked at together


def fit_attention(
    features: Tensor, inside: Tensor, outside: Tensor, *, strength: float = 1e-3, tolerance: float | None = None
) -> tuple[Tensor, Tensor]:
    """Fit one 1 x 1 convolution whose sigmoid is the object's mask.

    What is minimized, with z the channels scaled to mean 0 and standard deviation 1 over the places that count: the mean over
    the images of the binary cross-entropy of `w z + b` and the mask, as the guide `attention_gate` has it, plus
    `strength / 2 * ||w||^2`. The problem is convex. An image where nothing counts is left out.

    Args:
        features: (N, C, h, w) floats.
        inside: (N, h, w) the share of each place that the object covers.
        outside: (N, h, w) the share that the background covers; what is missing to 1 does not count.
        strength: of the penalty, above 0.
        tolerance: largest gradient where the search ends, above 0; None = 1e-8 for features in float64, else 1e-5, because
            features of lower precision are multiplied in float32. A larger one takes less time.

    Returns:
        Weight (1, C) and bias (1,) in float64 for the unscaled features: the scaling is folded in.

    Raises:
        SightlineError: an argument is not as above, or no image has an object.
    """
    check_features(features, "N", "C", "h", "w")
    check_positive(strength=strength, **({} if tolerance is None else {"tolerance": tolerance}))
    for name, part in (("inside", inside), ("outside", outside)):
        check_shape(part, name, (len(features), *features.shape[2:]))
        if not part.isfinite().all() or part.min() < 0:
            raise SightlineError(f"{name} holds NaN, infinity or a negative number; expected shares in [0, 1]")
    if not inside.any():
        raise SightlineError("inside is 0 everywhere; expected an object in at least one image")

    if features.device.type == "mps":  # it has no float64
        features = features.cpu()
    known = inside.flatten(1).any(1)
    inside, outside = (as_double(part[known]).flatten(1).to(features.device) for part in (inside, outside))
    if not known.all():
        features = features[known.to(features.device)]
    places = features.detach().flatten(2)  # (N, C, P)
    step = max(1, CHUNK // places[0].numel())
    chunks = [slice(first, first + step) for first in range(0, len(places), step)]
    scaling = _scaling(places, inside + outside, chunks)
    precise = places.dtype == torch.float64

    def linear(parameters: Tensor) -> Iterator[Tensor]:
        yield parameters[:-1]
        for chunk in chunks:
            weight, bias = scaling.fold(parameters[None, :-1], parameters[-1:])  # a graph of each chunk's own
            rows = at_least_float32(places[chunk])
            yield (weight.to(rows.dtype) @ rows)[:, 0].double() + bias  # (n, P)

    def loss_of(chunk: slice) -> Callable[[Tensor], Tensor]:
        return lambda logits: (
            attention_loss(logits[:, None], inside[chunk, None], outside[chunk, None]).sum() / len(places)
        )

    losses = [lambda weight: strength / 2 * weight.square().sum(), *map(loss_of, chunks)]
    start = torch.zeros(places.shape[1] + 1, dtype=torch.float64, device=places.device)
    enough, noise = (1e-8, 1e-14) if precise else (1e-5, 1e-7)
    found = minimize(linear, losses, start, tolerance or enough, noise)
    return scaling.fold(found[None, :-1], found[-1:])


def _scaling(places: Tensor, counts: Tensor, chunks: list[slice]) -> Scaling:
    """Return the scaling of the channels over the places (N, C, P) as often as they count (N, P)."""
    total = counts.sum()
    mean = torch.stack([(places[c].double() @ counts[c, :, None]).sum(0)[:, 0] for c in chunks]).sum(0) / total
    squares = ((places[c].double() - mean[:, None]).square() @ counts[c, :, None] for c in chunks)
    return Scaling.of(mean, torch.stack([s.sum(0)[:, 0] for s in squares]).sum(0) / total, places.dtype)
