"""Attributions by changed copies of the image, computed by Captum: occlusion, LIME, KernelSHAP."""

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sightline._core.checks import check_count, check_positive
from sightline._core.seeding import seeded
from sightline._core.tensors import check_finite, check_shape, has_contrast
from sightline.attributions.attribution import AttributionRequest, Baseline, attribution
from sightline.errors import SightlineError

CHECKED = 128  # coalitions, after each of which the regression may be finished; a power of two
if TYPE_CHECKING:
    from captum.attr import KernelShap, Lime

logger = logging.getLogger(__name__)

Length = int | float  # pixels (int), or a fraction of the image's side (float)


def _pixels(length: Length, side: int, argument: str) -> int:
    """Return a length in pixels, at least 1 and at most the side."""
    if isinstance(length, bool) or not isinstance(length, int | float) or not length > 0:
        raise SightlineError(
            f"{argument} is {length!r}; expected pixels (int) or a fraction of the side (float), above 0"
        )
    if isinstance(length, float) and length > 1:
        raise SightlineError(
            f"{argument} is {length}; a float is a fraction of the side, at most 1 (pixels are an int)"
        )
    return min(side, max(1, round(length * side) if isinstance(length, float) else length))


@attribution("occlusion", needs_gradient=False, precise="unless_asked")
def occlusion(
    request: AttributionRequest, *, window: Length = 15 / 224, stride: Length = 8 / 224, baseline: Baseline = 0.0
) -> Tensor:
    """Occlusion: how much the score falls when a window hides the pixel, averaged over windows (Zeiler & Fergus 2014).

    The paper gives no sizes; the defaults are those of Captum's tutorial, 15 and 8 pixels of 224, scaled with the image: 784
    evaluations for a square one. The window is filled with `baseline`, in the units of the model's input: 0 is the paper's
    grey where inputs are normalized.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.
        window: Side of the hidden window: pixels (a whole number), or a fraction of the image side (a float up to 1).
        stride: Distance between windows, in the same units.
        baseline: What stands for a missing pixel: a number, or a tensor that broadcasts to (1, C, H, W), in the units of the
            model's input. The default is the mean color of the training images where inputs are normalized.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014), section 4.2.
    """
    from captum.attr import Occlusion

    channels, height, width = request.inputs.shape[1:]
    windows = [_pixels(window, side, "window") for side in (height, width)]
    strides = [_pixels(stride, side, "stride") for side in (height, width)]
    if any(s > w for s, w in zip(strides, windows)):
        raise SightlineError(
            f"stride is {stride} and window {window}: {strides} and {windows} pixels; a stride above the window leaves gaps"
        )
    return Occlusion(request.forward).attribute(
        request.inputs,
        sliding_window_shapes=(channels, *windows),
        strides=(channels, *strides),
        baselines=request.baseline(baseline),
        additional_forward_args=(request.image_index,),
        perturbations_per_eval=request.copies,
    )


@attribution("lime", needs_gradient=False, precise="unless_asked")
def lime(
    request: AttributionRequest,
    *,
    samples: int = 1000,
    patch: Length = 1 / 8,
    features: Tensor | None = None,
    baseline: Baseline = 0.0,
    seed: int = 0,
) -> Tensor:
    """LIME: the weights of a linear model of which patches are shown, fitted near the image (Ribeiro et al. 2016).

    Ridge regression (penalty 1), the kernel exp(-d^2 / (2 * 0.25^2)) of the cosine distance d between patch indicators, and
    1000 `samples`, as the authors' code for images has them. `features` (H, W) gives each pixel the number of its region,
    such as a superpixel; None = a grid of patches. Images take the same draws, and are explained one after the other:
    `samples` evaluations and one regression each.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.
        samples: Number of evaluations of the model per image.
        patch: Side of a patch: pixels (a whole number), or a fraction of the image side (a float up to 1).
        features: Number of the region of each pixel (H, W), such as a superpixel; None makes a grid of patches.
        baseline: What stands for a missing pixel: a number, or a tensor that broadcasts to (1, C, H, W), in the units of the
            model's input. The default is the mean color of the training images where inputs are normalized.
        seed: Random seed of the samples, the same draws for every image.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Ribeiro, Singh, Guestrin, "Why Should I Trust You? Explaining the Predictions of Any Classifier" (KDD 2016), section 3.
    """
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def nearness(original: Tensor, perturbed: Tensor, shown: Tensor, **_: object) -> Tensor:
        distance = 1 - shown.double().mean(1).sqrt()  # cosine distance from the image, which shows all patches
        return torch.exp(-(distance**2) / (2 * 0.25**2))

    scores = _Scores(request.forward)
    captum = Lime(scores, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=nearness)
    return _surrogate(captum, scores, request, samples, _regions(request.inputs, patch, features), baseline, seed)


@attribution("kernel_shap", needs_gradient=False, precise="unless_asked")
def kernel_shap(
    request: AttributionRequest,
    *,
    samples: int | None = None,
    tolerance: float | None = None,
    patch: Length = 1 / 8,
    features: Tensor | None = None,
    baseline: Baseline = 0.0,
    seed: int = 0,
) -> Tensor:
    """KernelSHAP: Shapley values of patches by weighted regression (Lundberg & Lee 2017, theorem 2).

    `samples` coalitions are drawn from the Shapley kernel; None takes 2 M + 2048 for M patches, as the authors' code does.
    `features` (H, W) gives each pixel the number of its region instead of the grid of patches. Images take the same
    draws, and are explained one after the other: `samples` evaluations and one regression each.

    Args:
        request: The model, its inputs (N, C, H, W) and the explained scores.
        samples: Number of coalitions per image; None takes 2 M + 2048 for M patches.
        tolerance: Take no more coalitions once the largest standard error of a value is at most this share of the range of the
            values (Covert & Lee 2021), asked after each 128; `samples` is then the most, and how many were taken is logged.
            None takes all.
        patch: Side of a patch: pixels (a whole number), or a fraction of the image side (a float up to 1).
        features: Number of the region of each pixel (H, W), such as a superpixel; None makes a grid of patches.
        baseline: What stands for a missing pixel: a number, or a tensor that broadcasts to (1, C, H, W), in the units of the
            model's input. The default is the mean color of the training images where inputs are normalized.
        seed: Random seed of the samples, the same draws for every image.

    Returns:
        Attributions (N, C, H, W), with signs.

    References:
        Lundberg, Lee, "A Unified Approach to Interpreting Model Predictions" (NeurIPS 2017), section 4.1.
        Covert, Lee, "Improving KernelSHAP: Practical Shapley Value Estimation Using Linear Regression" (AISTATS 2021).
    """
    from captum.attr import KernelShap

    regions = _regions(request.inputs, patch, features)
    count = int(regions.max()) + 1
    if count < 2:
        raise SightlineError("kernel_shap: the whole image is one patch; at least 2 are needed")
    samples = 2 * count + 2048 if samples is None else samples
    scores = _Scores(request.forward)
    captum = KernelShap(scores)
    if tolerance is None:
        return _surrogate(captum, scores, request, samples, regions, baseline, seed)
    check_positive(tolerance=tolerance)
    captum.perturb_func = until_converged(captum.kernel_shap_perturb_generator, scores.so_far, tolerance)
    # Calls of which whole ones come before each check: their size decides nothing.
    request = replace(request, rows=1 << min(request.rows, CHECKED).bit_length() - 1)
    return _surrogate(captum, scores, request, samples, regions, baseline, seed)


class _Scores:
    """A function of changed images that notes its range, and rejects scores without a value, which no regression takes.

    Args:
        forward: returns the score of each changed image.
    """

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward
        self.taken: list[Tensor] = []

    def __call__(self, *arguments: Any) -> Tensor:
        scores = self.forward(*arguments)
        check_finite(scores, "the scores of changed images", "is the model finite there?")
        self.taken.append(scores.detach())
        return scores

    def so_far(self) -> Tensor:
        """Return the scores since the last time that `vary` was asked."""
        return torch.cat(self.taken)

    def vary(self) -> Tensor:
        """Return whether the scores varied by more than rounding since the last time that this was asked."""
        scores, self.taken = self.so_far(), []
        return has_contrast(torch.stack(scores.aminmax())[None])


def _surrogate(
    captum: "Lime | KernelShap",
    scores: _Scores,
    request: AttributionRequest,
    samples: int,
    regions: Tensor,
    baseline: Baseline,
    seed: int,
) -> Tensor:
    check_count(2, samples=samples)
    parts = []
    for one in request.split():
        with seeded(one.inputs.device, seed, "surrogate"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Generator completed prior")
            part = captum.attribute(
                one.inputs,
                baselines=one.baseline(baseline),
                additional_forward_args=(one.image_index,),
                feature_mask=regions,
                n_samples=samples,
                perturbations_per_eval=one.rows,
            )
        logger.info("%s took %s of %s samples for an image", type(captum).__name__, len(scores.so_far()), samples)
        parts.append(part * scores.vary())  # a regression on rounding noise has no meaning
    return torch.cat(parts)


def _regions(inputs: Tensor, patch: Length, features: Tensor | None) -> Tensor:
    """Return the region (1, 1, H, W) that each pixel belongs to, counted from 0 without gaps."""
    height, width = inputs.shape[-2:]
    if features is None:
        rows, columns = (
            torch.arange(side, device=inputs.device) // _pixels(patch, side, "patch") for side in (height, width)
        )
        return (rows[:, None] * (int(columns[-1]) + 1) + columns)[None, None]
    check_shape(features, "features", (height, width), meaning="the number of each pixel's region")
    if features.is_floating_point():
        raise SightlineError(f"features have dtype {features.dtype}; expected integers")
    return features.to(inputs.device).unique(return_inverse=True)[1][None, None]


def values_and_errors(shown: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values (M,) of M parts and their standard errors (M,), which tell when KernelSHAP has enough coalitions.

    Covert and Lee, "Improving KernelSHAP: Practical Shapley Value Estimation Using Linear Regression" (AISTATS 2021), stop when
    the largest standard error is a small share of the range of the values. They take errors from repeated regressions; here
    they are the robust ("sandwich") errors of the one regression, which hold for random coalitions and any model.

    Args:
        shown: (n, M), which parts each coalition shows; the first shows all, the second none, and the others are draws from the
            Shapley kernel.
        scores: (n,) of the coalitions.
    """
    shown, scores = shown.cpu().double(), scores.cpu().double()
    full, empty = scores[:2]
    shown, scores = shown[2:], scores[2:]
    # The values sum to full - empty: the last one is what the others leave.
    design = shown[:, :-1] - shown[:, -1:]
    answers = scores - empty - shown[:, -1] * (full - empty)
    inverse = torch.linalg.pinv(design.T @ design)
    values = inverse @ (design.T @ answers)
    residuals = answers - design @ values
    meat = (design * residuals[:, None]).T @ (design * residuals[:, None])
    covariance = inverse @ meat @ inverse * len(design) / max(1, len(design) - design.shape[1])
    last = (covariance.sum()).clamp_min(0).sqrt()
    return (
        torch.cat([values, (full - empty - values.sum())[None]]),
        torch.cat([covariance.diagonal().clamp_min(0).sqrt(), last[None]]),
    )


def until_converged(
    draw: Callable[..., Iterator[Tensor]], scores_of: Callable[[], Tensor], tolerance: float
) -> Callable[..., Iterator[Tensor]]:
    """Return a generator of coalitions that ends once the largest standard error is at most this share of the values' range.

    Args:
        draw: the generator of coalitions (1, M).
        scores_of: returns the scores of the coalitions that have been evaluated.
        tolerance: the share.
    """

    def coalitions(original: Any, **options: Any) -> Iterator[Tensor]:
        drawn: list[Tensor] = []
        for coalition in draw(original, **options):
            if len(drawn) % CHECKED == 0 and len(drawn) > 2 + 2 * coalition.shape[1]:
                values, errors = values_and_errors(torch.cat(drawn), scores_of())
                if errors.max() <= tolerance * (values.max() - values.min()):
                    return
            drawn.append(coalition)
            yield coalition

    return coalitions
