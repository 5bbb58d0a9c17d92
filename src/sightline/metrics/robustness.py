"""What an attack leaves of a model's accuracy."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sightline._core.checks import check_fraction
from sightline._core.tensors import at_least_float32
from sightline.attacks import ascent, sign_step
from sightline.errors import SightlineError
from sightline.metric_base.base import CurveMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.accuracy import correct
from sightline.network.input_spec import InputSpec

EPS = tuple(eps / 255 for eps in (1, 2, 4, 8, 16))


def fgsm_hits(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float] = EPS,
    *,
    input_spec: InputSpec | None = None,
    internal_batch_size: int | None = None,
) -> Tensor:
    """Whether the model stays right under FGSM made for it, of those images that it is right about.

    Models compare on the images that all of them are right about: those without NaN in any model's answer.

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        labels: (B,) int64.
        eps: the change of a pixel, in [0, 1].
        input_spec: normalizes the images inside.
        internal_batch_size: images in one call to the model; None chooses.

    Returns:
        (B, number of eps) 1 where it stays right, else 0; NaN for an image that it is wrong about without an attack.

    Raises:
        SightlineError: images outside [0, 1], or another argument that is not as above.
    """
    metric = FGSMAccuracy(model, eps=eps, input_spec=input_spec, internal_batch_size=internal_batch_size)
    return metric.curves(
        Observation(images=images, labels=labels, probabilities=metric.scorer(images), scorer=metric.scorer)
    )


@register("fgsm_accuracy")
class FGSMAccuracy(CurveMetric):
    """Accuracy under FGSM on the images that the model classifies correctly, averaged over the attack sizes; in [0, 1].

    Higher is better. An image that the model misclassifies without an attack counts as skipped.

    Called "relative accuracy" in the paper.


    Args:
        eps: the changes of a pixel, in [0, 1].

    References:
        Wu et al., "Improving Network Interpretability via Explanation Consistency Evaluation" (IEEE Transactions on Multimedia
            2024), Figures 9c and 9d.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0] = 0.5
        >>> metric = sl.metrics.FGSMAccuracy(model, eps=[0.1, 0.4])
        >>> metric.update(images, torch.tensor([0]))
        >>> metric.compute().item(), metric.curve.tolist()  # 0.4 against 0.1, then 0.1 against 0.4
        (0.5, [1.0, 0.0])
    """

    needs_maps = False

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: Sequence[float] = EPS,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        if not eps:
            raise SightlineError("eps is empty; expected one change of a pixel or more, each above 0")
        for each in eps:
            check_fraction("(0, 1]", eps=each)
        super().__init__(model, eps, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.eps = tuple(eps)

    def update(self, images: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Take a batch: images (B, C, H, W) in [0, 1] and labels (B,)."""
        self.update_batch(
            Observation(images=images, labels=labels, probabilities=self.scorer(images), scorer=self.scorer)
        )

    def curves(self, observation: Observation) -> Tensor:
        """1 where the model stays right, at each eps; NaN where it was wrong."""
        return observation.cached(_hits, self.eps)


def _hits(observation: Observation, eps: tuple[float, ...]) -> Tensor:
    images, labels, scorer = observation.require("images"), observation.require("labels"), observation.require("scorer")
    right = correct(observation.require("probabilities"), labels).nonzero().flatten()
    hits = torch.full((len(images), len(eps)), torch.nan, device=images.device)
    for rows in right.split(scorer.batch_size(images, len(right))) if len(right) else ():
        gradient = ascent(scorer.model, images[rows], labels[rows], input_spec=scorer.input_spec)
        for number, size in enumerate(eps):
            attacked = sign_step(at_least_float32(images[rows]), gradient, size)
            hits[rows, number] = correct(scorer(attacked), labels[rows])
    return hits
