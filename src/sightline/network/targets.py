"""What a map explains: one scalar of the model's output per image, by default the logit of the predicted class.

Examples:
    >>> model, _ = sl.load_model("sightline/small_cnn", classes=3)
    >>> maps = sl.explain(model, torch.rand(1, 3, 64, 64), targets=sl.targets.Contrast())  # why this class and not another?

A user may name a class, or give any function of the output. Both become a `Score`, which methods that run the model on many
changed copies of an image can ask too, because it is told which image each row of the output belongs to.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from sightline._core.checks import check_count, check_non_negative
from sightline._core.tensors import check_shape
from sightline.errors import SightlineError
from sightline.network.logits import class_scores, logits_of, returned_logits


class Score(Protocol):
    """The scalars (N,) that N rows of a model's output are explained by."""

    def __call__(self, output: Any, of: Tensor) -> Tensor:
        """Return the scores.

        Args:
            output: what the model returned for N inputs.
            of: (N,) int64, which image of the batch each of the inputs was made from.
        """


class Target(Protocol):
    """A question about a model's answer that needs its answer for the unchanged images to become a score: `Contrast()`, say."""

    def resolve(self, output: Any) -> Score:
        """Return the target for images whose unchanged versions give this output."""


Targets = Tensor | int | Target | Callable[[Any], Tensor] | None
GivenTargets = Targets | Sequence[int] | np.ndarray
"""What users give as targets: class indices also as a list, a tuple or an array of integers."""


def as_targets(given: GivenTargets) -> Targets:
    """Return targets with class indices as a tensor.

    Raises:
        SightlineError: a list, a tuple or an array that does not hold integers.
    """
    if not isinstance(given, list | tuple | np.ndarray):
        return cast(Targets, given)
    try:
        indices = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SightlineError(f"targets is {given!r}; expected class indices, one integer an image") from error
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise SightlineError(f"targets is {given!r}; expected class indices, one integer an image")
    return indices


def resolve_score(targets: Targets, output: Any) -> Score:
    """Return the target that `targets` asks for, given the output for the unchanged images.

    Args:
        targets: a class index, (B,) indices, None = the predicted class of each image (of a single logit, class 1 where it is
            above 0, else class 0), a `Target` such as `Contrast()`, or a
            function from the model's output for N inputs to (N,) scores, which must treat each row by itself.
        output: what the model returned for the B images.

    Raises:
        SightlineError: an index is not one of the model's classes, or their number is not that of the images.
    """
    if isinstance(targets, Tensor | int) or targets is None:
        return ClassScore(resolve_targets(targets, logits_of(output)))
    if hasattr(targets, "resolve"):
        return targets.resolve(output)
    if callable(targets):
        return _Function(targets)
    raise SightlineError(f"targets is a {type(targets).__name__}; expected class indices, None, a Target or a function")


def resolve_targets(targets: Tensor | int | None, logits: Tensor) -> Tensor:
    """Return the classes (B,) that are explained: the predicted ones by default.

    Raises:
        SightlineError: an index outside 0 .. K - 1, or another number of them than images.
    """
    if targets is None:
        return logits.detach().argmax(1)
    size, classes = logits.shape
    if not isinstance(targets, Tensor | int):
        raise SightlineError(f"targets is {targets!r}; class indices are needed here: an int, or an int64 tensor (B,)")
    if isinstance(targets, Tensor) and (targets.is_floating_point() or targets.dtype == torch.bool):
        raise SightlineError(f"targets have dtype {targets.dtype}; expected integer class indices")
    indices = torch.as_tensor(targets, dtype=torch.int64, device=logits.device)
    if indices.ndim == 0:
        indices = indices.expand(size)
    check_shape(indices, "targets", (size,), meaning="one class an image")
    if indices.numel():
        low, high = torch.stack(torch.aminmax(indices)).tolist()  # one wait for the device
        if low < 0 or high >= classes:
            raise SightlineError(f"targets range over [{low}, {high}]; the model has classes 0 .. {classes - 1}")
    return indices


class ClassScore:
    """The logit of one class an image; of a single logit z, z for class 1 and -z for class 0.

    Attributes:
        classes: (B,) int64.
    """

    def __init__(self, classes: Tensor) -> None:
        self.classes = classes

    def __call__(self, output: Any, of: Tensor) -> Tensor:
        """Return the scores (N,)."""
        return class_scores(output).gather(1, self.classes[of, None])[:, 0]


class Resolved:
    """A target whose score is fixed already, regardless of the output it is asked about.

    Args:
        score: resolved on the images that later ones are copies of, in their order.
    """

    def __init__(self, score: Score) -> None:
        self.score = score

    def resolve(self, output: Any) -> Score:
        """Return the target itself: it does not depend on the output."""
        return self.score


class _Function:
    def __init__(self, function: Callable[[Any], Tensor]) -> None:
        self.function = function

    def __call__(self, output: Any, of: Tensor) -> Tensor:
        scores = self.function(output)
        if not isinstance(scores, Tensor) or scores.shape != of.shape:
            came = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise SightlineError(f"the target function returned {came}; expected one score per image, ({len(of)},)")
        return scores


class Contrast:
    """Why this class, and not that one: the difference of their logits.

    Args:
        target: the class to explain: one index, (B,) indices or None = the predicted class.
        versus: the class to set it against, likewise; None = the likeliest of the others.
    """

    def __init__(self, target: Tensor | int | None = None, versus: Tensor | int | None = None) -> None:
        self.target = target
        self.versus = versus

    def resolve(self, output: Any) -> Score:
        """Return the difference of two logits.

        Raises:
            SightlineError: a class is compared with itself, or an index is not one of the model's.
        """
        logits = logits_of(output)
        target = resolve_targets(self.target, logits)
        others = logits.detach().scatter(1, target[:, None], -torch.inf)
        versus = resolve_targets(self.versus, others)
        if same := (target == versus).nonzero().flatten().tolist():
            raise SightlineError(
                f"Contrast: target and versus are the same class for images {same[:10]} of the batch; "
                "give two different classes"
            )

        def score(output: Any, of: Tensor) -> Tensor:
            logits = logits_of(output)
            return logits.gather(1, target[of, None])[:, 0] - logits.gather(1, versus[of, None])[:, 0]

        return score


class AgainstSimilar:
    """Why this class, and not those most like it: its score less `weight` times the mean score of the most similar classes.

    The most similar classes are those whose scores for the image are the nearest to that of the class (Finer-CAM, Zhang et
    al. 2025).

    Args:
        target: the class to explain: one index, (B,) indices or None = the predicted class.
        count: how many similar classes; all others where the model has fewer.
        weight: of their mean score; the paper's gamma.
    """

    def __init__(self, target: Tensor | int | None = None, count: int = 3, weight: float = 0.6) -> None:
        check_count(count=count)
        check_non_negative(weight=weight)
        self.target = target
        self.count = count
        self.weight = weight

    def resolve(self, output: Any) -> Score:
        """Return the difference of the class's score and the mean of the others.

        Raises:
            SightlineError: an index is not one of the model's.
        """
        target = resolve_targets(self.target, logits_of(output))[:, None]
        scores = class_scores(output).detach()
        distances = (scores - scores.gather(1, target)).abs().scatter(1, target, torch.inf)
        similar = distances.topk(min(self.count, scores.shape[1] - 1), largest=False).indices

        def score(output: Any, of: Tensor) -> Tensor:
            scores = class_scores(output)
            return scores.gather(1, target[of])[:, 0] - self.weight * scores.gather(1, similar[of]).mean(1)

        return score


def joint(*classes: int) -> Callable[[Any], Tensor]:
    """Several classes at once: the sum of their logits.

    Args:
        classes: their indices.

    Raises:
        SightlineError: there are none; or, when it is asked, an index is not one of the model's, or the model has a single
            logit, whose two classes cancel.
    """
    if not classes:
        raise SightlineError("joint: no class was given; name at least one")

    def score(output: Any) -> Tensor:
        scores = class_scores(output)
        if len(set(classes)) > 1 and returned_logits(output).shape[1] == 1:
            raise SightlineError(
                f"joint: classes are {classes}; the model has one logit, so their scores cancel; name one"
            )
        return torch.stack([scores.gather(1, resolve_targets(c, scores)[:, None])[:, 0] for c in classes]).sum(0)

    return score


def semantic(category: int | Tensor, region: Tensor | None = None) -> Target:
    """One category of a semantic segmentation: the sum of its logits over a region.

    Args:
        category: its index among the output's channels; one for all images or (B,).
        region: weights at the output's resolution, such as a mask: (h, w) for all images or (B, h, w); None = everywhere.
    """

    def score(output: Any, of: Tensor) -> Tensor:
        # torchvision keeps the logits in a dict, transformers in an attribute (of an object that is a dict as well).
        logits = output["out"] if isinstance(output, dict) and "out" in output else getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
            raise SightlineError(f"semantic: the model returned {came}; expected logits (B, K, h, w)")
        channels = _each_row("category", category, 0, of)
        if int(channels.min()) < 0 or int(channels.max()) >= logits.shape[1]:
            raise SightlineError(
                f"semantic: category is {category}; the output has categories 0 .. {logits.shape[1] - 1}"
            )
        planes = logits[torch.arange(len(of), device=logits.device), channels]  # (N, h, w)
        if region is None:
            return planes.sum((1, 2))
        if region.shape[-2:] != planes.shape[1:]:
            raise SightlineError(
                f"semantic: region has shape {tuple(region.shape)}; the output's is {tuple(planes.shape[1:])}"
            )
        return (planes * _each_row("region", region, 2, of).to(planes)).sum((1, 2))

    return Resolved(score)


def detection(category: int | Tensor, box: Tensor | tuple[float, float, float, float]) -> Target:
    """One object that a torchvision detector found: the score of the category's best detection there.

    That is the largest score times overlap (IoU) with the box; an image without a detection of the category scores 0.

    Args:
        category: the label that the detector gives it; one for all images or (B,).
        box: (x0, y0, x1, y1) in pixels, where it was found; one for all images or (B, 4).
    """

    def score(output: Any, of: Tensor) -> Tensor:

        if not isinstance(output, list) or not all(
            isinstance(found, dict) and {"boxes", "labels", "scores"} <= found.keys() for found in output
        ):
            raise SightlineError(
                f"detection: the model returned {type(output).__name__}; expected a list with a dict of boxes, labels and "
                "scores for each image, as torchvision's detectors return"
            )
        scores = []
        for found, label, place in zip(output, _each_row("category", category, 0, of), _each_row("box", box, 1, of)):
            overlap = box_iou(place[None].to(found["boxes"]), found["boxes"])[0]
            same = found["labels"] == label
            scores.append((found["scores"] * overlap)[same].amax() if same.any() else found["scores"].sum() * 0)
        return torch.stack(scores)

    return Resolved(score)


def _each_row(argument: str, value: Any, ndim: int, of: Tensor) -> Tensor:
    """Return the value for each of N rows, from a value of `ndim` dimensions given once for all images, or for each of them."""
    value = torch.as_tensor(value, device=of.device)
    if value.ndim == ndim:
        return value.expand(len(of), *value.shape)
    if value.ndim != ndim + 1 or len(value) <= int(of.max()):
        raise SightlineError(
            f"{argument} has shape {tuple(value.shape)}; expected one for all images, or one for each of at least "
            f"{int(of.max()) + 1} images"
        )
    return value[of]
