"""Explanation consistency: images disturbed where their maps are low, and how far the maps change.

"Improving Network Interpretability via Explanation Consistency Evaluation", Eqs. 1 to 3 and 7.
"""

from collections.abc import Callable
from math import pi
from typing import Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice
from sightline._core.fills import filled
from sightline._core.tensors import check_maps
from sightline.attacks.fast_gradient import ascent, sign_step
from sightline.network.input_spec import InputSpec

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
    eps: float | Tensor = 0.1,
    input_spec: InputSpec | None = None,
    gradient: Tensor | None = None,
    clamp: bool = True,
) -> Tensor:
    """Images changed where their maps are low: the change times 1 - map, clamped to [0, 1].

    Args:
        model: a classifier that returns logits (B, K).
        images: (B, C, H, W) in [0, 1].
        maps: (B, H, W) in [0, 1].
        labels: (B,) the classes whose cross-entropy FGSM raises.
        perturbation: "fgsm", or a fade to "zero" or to the image's "mean" color.
        eps: FGSM's change of a pixel; (C, 1, 1) for a change of each channel.
        input_spec: normalizes the images inside.
        gradient: (B, C, H, W), that of the images' cross-entropy, where it is known; None = FGSM takes it.
        clamp: keep the images in [0, 1]; False = Eq. 1 as printed.
    """
    check_maps(maps, images[:, 0].shape, low=0, high=1)
    check_options(perturbation=perturbation)
    if perturbation == "fgsm":
        if gradient is None:
            gradient = ascent(model, images, labels, input_spec=input_spec)
        return sign_step(images.to(gradient), gradient, eps, 1 - maps, clamp)
    others = filled(images, 0.0 if perturbation == "zero" else "mean")
    return torch.lerp(others, images, maps[:, None].to(images))


def check_options(psi: str = "tanh", distance: str = "mean", perturbation: str = "fgsm") -> None:
    """Raise if an option is none of those of `explanation_consistency` and `disturbed_images`."""
    check_choice(PSI, psi=psi)
    check_choice(Distance, distance=distance)
    check_choice(Perturbation, perturbation=perturbation)
