"""Explanation consistency: whether a model explains itself the same way when what the map left out is disturbed.

"Improving Network Interpretability via Explanation Consistency Evaluation", Eqs. 1 to 3 and 7.
"""

from collections.abc import Callable
from math import pi
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sightline.attacks import fgsm, sign_step
from sightline.errors import SightlineError, unknown_name
from sightline.explainers import Explainer
from sightline.metrics.base import ExplainerMetric, observe
from sightline.metrics.fills import filled
from sightline.metrics.observation import Observation, check_maps
from sightline.metrics.registry import register
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection

Psi = Literal["tanh", "softsign", "arctan1"]
Distance = Literal["mean", "sum"]
Perturbation = Literal["fgsm", "zero", "mean"]

PSI: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softsign": nn.functional.softsign,
    "arctan1": lambda distance: 2 * torch.atan(distance) / pi,
}


def explanation_consistency(
    maps: Tensor, again: Tensor, unchanged: Tensor, psi: Psi = "tanh", distance: Distance = "mean"
) -> Tensor:
    """E = 1 - psi(distance of the two maps) where the prediction is unchanged, else 0.

    Args:
        maps: (B, H, W) in [0, 1], the maps of the images.
        again: (B, H, W) in [0, 1], the maps of the disturbed images, for the same classes.
        unchanged: (B,) bool, where the disturbed image is still predicted as the image is.
        psi: takes the distance to [0, 1): "tanh" (the paper's), "softsign" = d / (1 + d) or "arctan1" = 2 atan(d) / pi.
        distance: "mean" = 10 times the mean squared difference; "sum" = the sum of squares, as printed, which for maps of
            thousands of pixels takes every E to 0.

    Returns:
        (B,) in [0, 1].
    """
    check_maps(maps, low=0, high=1)
    check_maps(again, maps.shape, low=0, high=1)
    check_options(psi, distance)
    squares = (maps - again).square().flatten(1)
    apart = 10 * squares.mean(1) if distance == "mean" else squares.sum(1)
    return torch.where(unchanged, 1 - PSI[psi](apart), 0.0)


def disturbed_images(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    labels: Tensor,
    *,
    perturbation: Perturbation = "fgsm",
    eps: float = 0.1,
    input_spec: InputSpec | None = None,
    gradient: Tensor | None = None,
) -> Tensor:
    """Images changed where their maps are low: the change times 1 - map, clamped to [0, 1].

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        maps: (B, H, W) in [0, 1].
        labels: (B,) the classes whose cross-entropy FGSM raises.
        perturbation: "fgsm", or a fade to "zero" or to the image's "mean" colour.
        eps: FGSM's change of a pixel.
        input_spec: normalises the images inside.
        gradient: (B, C, H, W), that of the images' cross-entropy, where it is known; None = FGSM takes it.
    """
    check_maps(maps, images[:, 0].shape, low=0, high=1)
    check_options(perturbation=perturbation)
    if perturbation == "fgsm" and gradient is not None:
        return sign_step(images, gradient, eps, 1 - maps)
    if perturbation == "fgsm":
        return fgsm(model, images, labels, eps=eps, weights=1 - maps, input_spec=input_spec)
    others = filled(images, 0.0 if perturbation == "zero" else "mean")
    return torch.lerp(others, images, maps[:, None].to(images))


@register("explanation_consistency")
class ExplanationConsistency(ExplainerMetric):
    """Mean agreement of the map and the map after an attack on what the map left out; 0 where the class changes.

    Args:
        model: a classifier that returns logits (B, K).
        explainer: the one that makes the maps, or its name.
        psi: "tanh", "softsign" or "arctan1".
        distance: "mean" (times 10) or "sum".
        perturbation: "fgsm", "zero" or "mean".
        eps: FGSM's change of a pixel, in [0, 1].
        layer: the target layer of the explainer.
        input_spec: normalises images in [0, 1].
        internal_batch_size: images in one call to the model.
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
        check_options(psi, distance)
        super().__init__(model, explainer, layer=layer, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.psi: Psi = psi
        self.distance: Distance = distance
        self.perturbation: Perturbation = perturbation
        self.eps = eps

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
    """The maps (B, H, W) of the disturbed images, and where the prediction is unchanged (B,)."""
    scorer, targets = observation.require("scorer"), observation.require("targets")
    changed = disturbed_images(
        scorer.model,
        observation.require("images"),
        observation.require("maps"),
        targets if observation.labels is None else observation.labels,
        perturbation=perturbation,
        eps=eps,
        input_spec=scorer.input_spec,
    )
    unchanged = scorer(changed).argmax(1) == observation.require("probabilities").argmax(1)
    return observation.require("explain")(changed, targets), unchanged


def check_options(psi: str = "tanh", distance: str = "mean", perturbation: str = "fgsm") -> None:
    """Refuse options that are not those of `ExplanationConsistency`."""
    if psi not in PSI:
        raise unknown_name("psi", psi, PSI)
    if distance not in get_args(Distance):
        raise SightlineError(f"distance is {distance!r}; expected 'mean' or 'sum'")
    if perturbation not in get_args(Perturbation):
        raise SightlineError(f"perturbation is {perturbation!r}; expected 'fgsm', 'zero' or 'mean'")
