"""MoRF and LeRF: how a class's probability falls while squares are replaced, most or least relevant first.

Samek et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned" (TNNLS 2017); squares of noise as in
"IMPACTX" (section 4.4). Both are the curves of `perturbation` with whole squares instead of pixels: taking
the k least relevant squares away leaves what inserting all the others gives.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_choice, check_count
from sightline._core.fills import Fill, filled
from sightline._core.seeding import drawn
from sightline._core.tensors import check_pixels
from sightline.faithfulness.perturbation import Curve, area_under_curve, curves_between, ranks_of
from sightline.metric_base.base import CurveMetric, observe
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metric_base.scoring import Scorer
from sightline.network.input_spec import InputSpec

Order = Literal["morf", "lerf"]
SquareFill = Literal["noise"] | Fill


def square_curves(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None = None,
    *,
    order: Order = "morf",
    square: int | None = None,
    steps: int = 64,
    fill: SquareFill = "noise",
    repeats: int = 5,
    seed: int = 0,
    indices: Tensor | None = None,
    input_spec: InputSpec | None = None,
    internal_batch_size: int | None = None,
) -> Tensor:
    """Return the probability of a class while squares of the image are replaced, in the order of the map's mean over each.

    Args:
        model: a classifier that returns logits (B, K); not changed.
        images: (B, C, H, W); in [0, 1] where the fill is noise or there is an input spec.
        maps: (B, H, W), any finite values.
        targets: the class whose probability counts: (B,) or one index; None = the clean image's top-1 class.
        order: "morf" = most relevant squares first, "lerf" = least relevant squares first. Squares of equal relevance go
            in row order, from the end for "lerf".
        square: side in pixels; None = 8, or 4 for images of at most 32 pixels. Squares at the border may be cut.
        steps: number of steps, each of which replaces an equal share of the squares; where there are fewer squares, one
            square is a step.
        fill: "noise" = uniform in [0, 1], a draw for each pixel, image and repeat; or as for `filled`.
        repeats: how many draws of noise the curve is the mean of.
        seed: of the noise.
        indices: (B,) each image's place in its dataset, which keys its noise; None = the pixels key it.
        input_spec: normalizes the images inside.
        internal_batch_size: images in one call to the model; None chooses.

    Returns:
        (B, S + 1) for S = min(steps, number of squares), from no square replaced to all of them.

    Raises:
        SightlineError: an argument is not as above, or maps or probabilities are NaN.
    """
    _check_options(order, square, steps, repeats)
    observation = observe(Scorer(model, input_spec, internal_batch_size), images, maps, targets)
    observation.indices = indices
    return _curves(observation, order, square, steps, fill, repeats, seed)


class SquareMetric(CurveMetric):
    """A metric of the curves of `square_curves`, whose options are these.

    Args:
        square: side in pixels; None = 8, or 4 for images of at most 32 pixels.
        steps: number of steps.
        fill: "noise", "blur", "mean" or a constant.
        repeats: number of draws of noise.
        seed: of the noise.

    References:
        Samek et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned" (TNNLS 2017), section III.
    """

    slow = True

    def __init__(
        self,
        model: nn.Module,
        *,
        square: int | None = None,
        steps: int = 64,
        fill: SquareFill = "noise",
        repeats: int = 5,
        seed: int = 0,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        _check_options("morf", square, steps, repeats)
        super().__init__(
            model,
            torch.linspace(0, 1, steps + 1).tolist(),
            input_spec=input_spec,
            internal_batch_size=internal_batch_size,
        )
        self.options = (square, steps, fill, repeats, seed)
        self.steps = steps

    def update(
        self, images: Tensor, maps: Tensor, targets: Tensor | int | None = None, indices: Tensor | None = None
    ) -> None:
        """Take a batch, as `ModelMetric.update` does.

        Args:
            images: (B, C, H, W).
            maps: (B, H, W).
            targets: the class whose probability counts; None = the clean image's top-1 class.
            indices: (B,) each image's place in its dataset, which keys its noise; None = the pixels key it.
        """
        observation = observe(self.scorer, images, maps, targets)
        observation.indices = indices
        self.update_batch(observation)

    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the area under the curve of each image."""
        return area_under_curve(self.raw_curves(observation))

    def curves(self, observation: Observation) -> Tensor:
        """Return the curve (B, steps + 1) of each image, interpolated between its steps where it has fewer."""
        raw = self.raw_curves(observation)
        return F.interpolate(raw[:, None], self.steps + 1, mode="linear", align_corners=True)[:, 0]

    @abstractmethod
    def raw_curves(self, observation: Observation) -> Tensor:
        """Return the curve of each image at the steps that it has."""


@register("morf")
class MoRF(SquareMetric):
    """Mean area under the class's probability while squares are replaced, the most relevant first; in [0, 1].

    Lower is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 16, 16)
        >>> images[:, 0, 8:, 8:] = 1  # a red object
        >>> morf, lerf = sl.metrics.MoRF(model), sl.metrics.LeRF(model)
        >>> morf.update(images, images[:, 0])
        >>> lerf.update(images, images[:, 0])
        >>> morf.compute().item() < lerf.compute().item()
        True
    """

    higher_is_better = False

    def raw_curves(self, observation: Observation) -> Tensor:
        """Return the MoRF curve of each image."""
        return observation.cached(_curves, "morf", *self.options)


@register("lerf")
class LeRF(SquareMetric):
    """Mean area under the class's probability while squares are replaced, least relevant first; in [0, 1].

    Higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 16, 16)
        >>> images[:, 0, 8:, 8:] = 1  # a red object
        >>> metric = sl.metrics.LeRF(model, fill=0.0)
        >>> metric.update(images, images[:, 0])
        >>> metric.curve.shape  # a value at each step
        torch.Size([65])
    """

    def raw_curves(self, observation: Observation) -> Tensor:
        """Return the LeRF curve of each image."""
        return observation.cached(_curves, "lerf", *self.options)


@register("lerf_minus_morf")
class LeRFMinusMoRF(SquareMetric):
    """Mean area between the LeRF and the MoRF curve, in [-1, 1]; higher is better.

    It measures how much the order of the map matters, regardless of the effect of the noise.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 16, 16)
        >>> images[:, 0, 8:, 8:] = 1  # a red object
        >>> metric = sl.metrics.LeRFMinusMoRF(model)
        >>> metric.update(images, images[:, 0])
        >>> metric.compute().item() > 0
        True
    """

    def raw_curves(self, observation: Observation) -> Tensor:
        """Return the difference of the two curves of each image."""
        return observation.cached(_curves, "lerf", *self.options) - observation.cached(_curves, "morf", *self.options)


def _curves(
    observation: Observation, order: Order, square: int | None, steps: int, fill: SquareFill, repeats: int, seed: int
) -> Tensor:
    images, maps = observation.require("images"), observation.require("maps")
    side = square or (4 if min(images.shape[-2:]) <= 32 else 8)
    ranks, count = _square_ranks(maps, side)
    steps = min(steps, count)
    replaced = torch.arange(1, steps, device=ranks.device) * count // steps  # squares, at each step
    kind: Curve = "deletion" if order == "morf" else "insertion"
    changed = replaced if order == "morf" else (count - replaced).flip(0)
    others = _others(images, fill, repeats, seed, observation.indices)
    curves = torch.stack([curves_between(observation, other, ranks, changed, (kind,))[kind] for other in others]).mean(
        0
    )
    return curves if order == "morf" else curves.flip(1)


def _others(images: Tensor, fill: SquareFill, repeats: int, seed: int, indices: Tensor | None) -> Iterator[Tensor]:
    """Yield the replacements of the squares, drawn once for every repeat."""
    if fill != "noise":
        yield filled(images, fill)
        return
    check_pixels(images, change="noise is added to pixels")
    for repeat in range(repeats):
        yield drawn(torch.rand, images, indices, seed, "squares", repeat)


def _square_ranks(maps: Tensor, side: int) -> tuple[Tensor, int]:
    """Return the rank (B, H, W) int32 of each pixel's square in the order of relevance, and the number of squares."""
    # A square that the border cuts counts by the pixels that it has.
    relevance = F.avg_pool2d(maps[:, None].double(), side, ceil_mode=True)[:, 0]
    height, width = maps.shape[1:]
    ranks = ranks_of(relevance).repeat_interleave(side, 1).repeat_interleave(side, 2)
    return ranks[:, :height, :width].contiguous(), relevance[0].numel()


def _check_options(order: str, square: int | None, steps: int, repeats: int) -> None:
    check_choice(Order, order=order)
    check_count(2, steps=steps)
    check_count(repeats=repeats, **({} if square is None else {"square": square}))
