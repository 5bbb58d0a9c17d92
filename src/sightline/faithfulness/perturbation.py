"""Insertion and deletion: how a class's probability follows the pixels that a map ranks highest.

Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018), section 4.
"""

from math import ceil
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_choice, check_count, check_positive
from sightline._core.fills import Fill, filled
from sightline._core.tensors import check_maps
from sightline.errors import SightlineError
from sightline.faithfulness.adaptive_curves import adaptive_curves
from sightline.metric_base.base import CurveMetric, observe
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metric_base.scoring import Scorer, check_probabilities
from sightline.network.input_spec import InputSpec

Curve = Literal["insertion", "deletion"]
Score = Literal["predicted", "max"]


def perturbation_curves(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None = None,
    *,
    steps: int = 224,
    fill: Fill = "blur",
    score: Score = "predicted",
    curves: tuple[Curve, ...] = ("insertion", "deletion"),
    tolerance: float | None = None,
    input_spec: InputSpec | None = None,
    internal_batch_size: int | None = None,
) -> dict[str, Tensor]:
    """Return the scores of images while pixels are inserted or deleted, from the map's highest value down.

    Insertion starts from the filled image and puts pixels in; deletion starts from the image and takes them out. Step s
    has changed the first floor(s H W / steps) pixels; equal values go in row order. Both curves come from one ranking,
    one mask per step and the same two ends: 2 steps model evaluations per image, in full batches.

    Args:
        model: a classifier that returns logits (B, K); used in eval mode, without a graph, and not changed.
        images: (B, C, H, W); in [0, 1] with an input spec.
        maps: (B, H, W), any finite values; only their order counts.
        targets: the class whose probability counts: (B,) or one index; None = the clean image's top-1 class.
        steps: number of steps.
        fill: what stands where the image is taken away (see `filled`): "blur", "mean" or a constant. It is made before
            the normalization.
        score: "predicted" = the probability of the target; "max" = the highest of all classes, again at each step.
        curves: those that are wanted.
        tolerance: largest bound on the error of each area, which asks the model at fewer steps: at 15 first, then between
            two where the curve changes most, and is straight between them. The bound holds where the curve stays between its
            values at two neighboring steps that were asked; a rise and fall between them is not seen. None = every step.
        input_spec: normalizes the images inside.
        internal_batch_size: images in one call to the model; None chooses, and halves it where the memory does not suffice.

    Returns:
        Each wanted curve (B, steps + 1), from no pixel changed to all of them.

    Raises:
        SightlineError: an argument is not as above, or maps or probabilities are NaN.
    """
    observation = observe(Scorer(model, input_spec, internal_batch_size), images, maps, targets)
    return _curves(observation, curves, steps, fill, score, tolerance)[0]


def area_under_curve(curves: Tensor) -> Tensor:
    """Return the area (B,) under curves (B, steps + 1) over the share of changed pixels, 0 to 1, by the trapezoid rule."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1))


class PerturbationMetric(CurveMetric):
    """The mean area under one of the curves of `perturbation_curves`, whose options are these.

    Args:
        steps: number of steps.
        fill: "blur", "mean" or a constant.
        score: "predicted" or "max".
        tolerance: of the area of each image, by which the model is asked at fewer steps; None = at every step.

    Attributes:
        evaluations: at how many of the steps + 1 places of the curve the model was asked, mean over the images, likewise.

    References:
        Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018), section 4.
    """

    slow = True
    kind: Curve
    asked_total: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int = 224,
        fill: Fill = "blur",
        score: Score = "predicted",
        tolerance: float | None = None,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        _check_options(steps, score, tolerance)
        super().__init__(
            model,
            torch.linspace(0, 1, steps + 1).tolist(),
            input_spec=input_spec,
            internal_batch_size=internal_batch_size,
        )
        self.steps, self.fill, self.score, self.tolerance = steps, fill, score, tolerance
        self.add_state("asked_total", torch.zeros(()), dist_reduce_fx="sum")
        self.evaluations = 0.0

    def curves(self, observation: Observation) -> Tensor:
        """Return the curve (B, steps + 1) of each image."""
        return self._found(observation)[0][self.kind]

    def update_batch(self, observation: Observation) -> None:
        """Measure a batch, and keep at how many places the model was asked."""
        super().update_batch(observation)
        self.asked_total = self.asked_total + self._found(observation)[1][self.kind].sum().to(self.asked_total)

    def compute(self) -> Tensor:
        """Return the mean area; `curve` and `evaluations` are then those of all images."""
        value = super().compute()
        self.evaluations = float(self.asked_total) / (self.n + self.skipped)
        return value

    def _found(self, observation: Observation) -> "_Found":
        together = observation.curves if self.kind in observation.curves else (self.kind,)
        return observation.cached(_curves, together, self.steps, self.fill, self.score, self.tolerance)

    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the area under the curve of each image."""
        return area_under_curve(self.curves(observation))


@register("insertion")
class Insertion(PerturbationMetric):
    """Mean probability of the class while pixels are added, the map's highest first, in [0, 1]; higher is better.

    This is the area under the insertion curve: pixels enter a filled image from the map's highest value down. A large area
    means that the class returns early.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0] = 1
        >>> metric = sl.metrics.Insertion(model, steps=8, fill=0.0)
        >>> metric.update(images, torch.rand(1, 8, 8))
        >>> round(metric.compute().item(), 2)  # from 1 / 3 to e / (e + 2)
        0.45
    """

    kind = "insertion"


@register("deletion")
class Deletion(PerturbationMetric):
    """Mean probability of the class while pixels are removed, the map's highest first, in [0, 1]; lower is better.

    This is the area under the deletion curve: pixels leave the image from the map's highest value down. A small area means
    that the class disappears early.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0] = 1
        >>> metric = sl.metrics.Deletion(model, steps=8, fill=0.0)
        >>> metric.update(images, torch.rand(1, 8, 8))
        >>> round(metric.compute().item(), 2)  # the pixels of this image are equal, so every map has this value
        0.45
    """

    kind = "deletion"
    higher_is_better = False


_Found = tuple[
    dict[str, Tensor], dict[str, Tensor]
]  # each kind's curves (B, steps + 1), and its numbers of known places (B,)


def _curves(
    observation: Observation,
    kinds: tuple[str, ...],
    steps: int,
    fill: Fill,
    score: Score,
    tolerance: float | None = None,
) -> _Found:
    _check_options(steps, score, tolerance)
    if not kinds or not set(kinds) <= set(get_args(Curve)):
        raise SightlineError(f"curves are {kinds}; expected 'insertion', 'deletion' or both")
    ranks = ranks_of(observation.require("maps"))
    changed = torch.arange(1, steps, device=ranks.device) * ranks[0].numel() // steps
    others = filled(observation.require("images"), fill)
    if tolerance is not None:
        return _adaptive(observation, others, ranks, changed, kinds, score, tolerance)
    found = curves_between(observation, others, ranks, changed, kinds, score)
    return found, {kind: torch.full_like(curve[:, 0], steps + 1) for kind, curve in found.items()}


def curves_between(
    observation: Observation,
    others: Tensor,
    ranks: Tensor,
    changed: Tensor,
    kinds: tuple[str, ...],
    score: Score = "predicted",
) -> dict[str, Tensor]:
    """Return the scores on the way from other images to these ("insertion"), or from these to the others ("deletion").

    Args:
        observation: the batch, with images, targets, probabilities and scorer.
        others: (B, C, H, W), what stands where an image is taken away.
        ranks: (B, H, W) int32, each pixel's place in the order of change.
        changed: (S,) int64 ascending: between the two ends, step s has changed the pixels of rank below `changed[s]`.
        kinds: "insertion", "deletion" or both, which cost one mask per step.
        score: as for `perturbation_curves`.

    Returns:
        Each kind's curve (B, S + 2).
    """
    images, targets, scorer = (
        observation.require("images"),
        observation.require("targets"),
        observation.require("scorer"),
    )
    prepared, nothing, ends = _ends(observation, others, score)
    count, changed = len(changed), changed.int()
    result = {}
    for kind in kinds:
        result[kind] = ends[kind].new_empty(len(images), count + 2)
        result[kind][:, 0], result[kind][:, -1] = ends[kind].unbind(1)

    in_all = len(kinds) * len(images) * count
    rows = max(1, scorer.batch_size(prepared, in_all) // len(kinds))  # (image, step) pairs in one call
    per_call = max(1, rows // max(1, count))  # whole images, where several fit
    for some in torch.arange(len(images)).split(per_call) if count else ():
        block = slice(int(some[0]), int(some[-1]) + 1)
        # Steps in calls of equal size, so none is left with a few.
        for part in torch.arange(count, device=ranks.device).tensor_split(ceil(len(some) * count / rows)):
            top = (ranks[block, None] < changed[part, None, None])[:, :, None]  # (b, s, 1, H, W)
            present, absent = prepared[block, None], nothing[block, None]  # (b, 1, C, H, W)
            mixed = _like(prepared, len(kinds), len(some), len(part))
            for kind, out in zip(kinds, mixed):
                first, second = (present, absent) if kind == "insertion" else (absent, present)
                torch.where(top, first, second, out=out)
            classes = targets[block].repeat_interleave(len(part)).repeat(len(kinds))
            answers = _scores(scorer.score(mixed.flatten(0, 2)), classes, score).view(mixed.shape[:3])
            for kind, answer in zip(kinds, answers):
                result[kind][block, part + 1] = answer
    for curve in result.values():
        check_probabilities(curve)
    return result


def _ends(observation: Observation, others: Tensor, score: Score) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return images and others as the model takes them, and each kind's scores (B, 2) at its first and last place.

    Choosing pixels commutes with normalizing them; the two ends are normalized once instead of every step.
    """
    scorer, targets = observation.require("scorer"), observation.require("targets")
    prepared, nothing = scorer.prepare(observation.require("images")), scorer.prepare(others)
    clean = _scores(observation.require("probabilities"), targets, score)
    gone = _scores(scorer.score(nothing), targets, score)
    ends = {"insertion": torch.stack([gone, clean], 1), "deletion": torch.stack([clean, gone], 1)}
    return prepared, nothing, ends


def _scores(probabilities: Tensor, targets: Tensor, score: Score) -> Tensor:
    return probabilities.amax(1) if score == "max" else probabilities.gather(1, targets[:, None])[:, 0]


def _adaptive(
    observation: Observation,
    others: Tensor,
    ranks: Tensor,
    changed: Tensor,
    kinds: tuple[str, ...],
    score: Score,
    tolerance: float,
) -> _Found:
    """Return what `_curves` does, with the model asked at few places."""
    prepared, nothing, ends = _ends(observation, others, score)
    targets = observation.require("targets")
    curves, known = adaptive_curves(
        observation.require("scorer"),
        torch.cat([ends[kind] for kind in kinds]),
        prepared,
        nothing,
        ranks,
        F.pad(changed, (1, 1)).int(),  # the ends are known
        torch.tensor([kind == "insertion" for kind in kinds], device=ranks.device),
        lambda probabilities, of: _scores(probabilities, targets[of], score),
        tolerance,
    )
    return tuple(dict(zip(kinds, each.chunk(len(kinds)))) for each in (curves, known))  # type: ignore[return-value]


def ranks_of(maps: Tensor) -> Tensor:
    """Return the rank (B, H, W) of each pixel from the map's highest value down; equal values are in row order."""
    check_maps(maps)
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=maps.device, dtype=torch.int32).expand_as(order)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places).view(maps.shape)


def _like(images: Tensor, *leading: int) -> Tensor:
    """Return an empty tensor (..., C, H, W) for many such images, channels last in memory where the images are."""
    channels, height, width = images.shape[1:]
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        return images.new_empty(*leading, height, width, channels).movedim(-1, -3)
    return images.new_empty(*leading, channels, height, width)


def _check_options(steps: int, score: str, tolerance: float | None) -> None:
    check_count(2, steps=steps)
    check_choice(Score, score=score)
    if tolerance is not None:
        check_positive(tolerance=tolerance)
