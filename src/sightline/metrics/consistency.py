"""Explanation consistency as a metric: whether maps stay the same when what they left out is disturbed."""

from torch import Tensor, nn

from sightline._core.checks import check_fraction
from sightline.attacks.consistency import (
    Distance,
    Perturbation,
    Psi,
    check_options,
    disturbed_images,
    explanation_consistency,
)
from sightline.explainers import Explainer
from sightline.metric_base.base import ExplainerMetric, observe
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection


@register("explanation_consistency")
class ExplanationConsistency(ExplainerMetric):
    """Mean agreement of each map with the map after an attack on the pixels that the map left out, in [0, 1].

    Higher is better. An image whose predicted class changes has the value 0.

    Args:
        psi: "tanh", "softsign" or "arctan1".
        distance: "mean" (times 10) or "sum".
        perturbation: "fgsm", "zero" or "mean".
        eps: FGSM's change of a pixel, in [0, 1].

    References:
        Wu et al., "Improving Network Interpretability via Explanation Consistency Evaluation" (IEEE Transactions on Multimedia
            2024), Eqs. 1 to 3.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0] = 1
        >>> metric = sl.metrics.ExplanationConsistency(model, "gaussian")  # a map that does not depend on the image
        >>> metric.update(images, sl.explain(model, images, "gaussian"))
        >>> metric.compute().item()
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        explainer: str | Explainer,
        *,
        psi: Psi = "tanh",
        distance: Distance = "mean",
        perturbation: Perturbation = "fgsm",
        eps: float = 0.1,
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        check_options(psi, distance, perturbation)
        check_fraction(eps=eps)
        super().__init__(model, explainer, layer=layer, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.psi, self.distance, self.perturbation, self.eps = psi, distance, perturbation, eps

    def update(
        self, images: Tensor, maps: Tensor, targets: Tensor | int | None = None, labels: Tensor | None = None
    ) -> None:
        """Take a batch.

        Args:
            images: (B, C, H, W) in [0, 1].
            maps: (B, H, W) in [0, 1], the explainer's own.
            targets: the classes that the maps explain; None = the clean image's top-1 class.
            labels: (B,) the classes whose cross-entropy FGSM raises; None = the explained ones.
        """
        observation = observe(self.scorer, images, maps, targets)
        observation.explain, observation.labels = self.explain, labels
        self.update_batch(observation)

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`explanation_consistency` of each image."""
        again, unchanged = observation.cached(_again, self.perturbation, self.eps)
        return explanation_consistency(observation.require("maps"), again, unchanged, self.psi, self.distance)


def _again(observation: Observation, perturbation: Perturbation, eps: float) -> tuple[Tensor, Tensor]:
    """Return the maps (B, H, W) of the disturbed images, and where the prediction is unchanged (B,)."""
    scorer, images, maps = (observation.require(name) for name in ("scorer", "images", "maps"))
    labels = observation.require("targets") if observation.labels is None else observation.labels
    spec: InputSpec | None = scorer.input_spec
    changed = disturbed_images(scorer.model, images, maps, labels, perturbation=perturbation, eps=eps, input_spec=spec)
    changed = changed.to(images.dtype)  # attacks return float32 at least
    unchanged = scorer(changed).argmax(1) == observation.require("probabilities").argmax(1)
    return observation.explain_again(changed, f"disturbed by {perturbation}"), unchanged
