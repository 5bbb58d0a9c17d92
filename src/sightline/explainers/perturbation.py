"""Attributions by changed copies of the image: what happens to the score when parts of it are hidden.

Occlusion, LIME and KernelSHAP are Captum's; RISE, which it does not have, is here.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.seeding import generator
from sightline.errors import SightlineError
from sightline.explainers.attribution import AttributionRequest, Baseline, attribution, fitting, seeded
from sightline.explainers.base import Explainer, normalize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets, resolve_score

if TYPE_CHECKING:
    from captum.attr import KernelShap, Lime

Length = int | float  # pixels (int), or a fraction of the image's side (float)


def _pixels(length: Length, side: int, argument: str) -> int:
    """A length in pixels, at least 1 and at most the side."""
    if isinstance(length, bool) or not isinstance(length, int | float) or not length > 0:
        raise SightlineError(
            f"{argument} is {length!r}; expected pixels (int) or a fraction of the side (float), above 0"
        )
    if isinstance(length, float) and length > 1:
        raise SightlineError(
            f"{argument} is {length}; a float is a fraction of the side, at most 1 (pixels are an int)"
        )
    return min(side, max(1, round(length * side) if isinstance(length, float) else length))


@attribution("occlusion", needs_gradient=False)
def occlusion(
    request: AttributionRequest, *, window: Length = 15 / 224, stride: Length = 8 / 224, baseline: Baseline = 0.0
) -> Tensor:
    """Occlusion: how much the score falls when a window hides the pixel, averaged over windows (Zeiler & Fergus 2014).

    The paper gives no sizes; the defaults are those of Captum's tutorial, 15 and 8 pixels of 224, scaled with the image: 784
    evaluations for a square one. The window is filled with `baseline`, in the units of the model's input: 0 is the paper's
    grey where inputs are normalised.
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


@attribution("lime", needs_gradient=False)
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
    """
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def nearness(original: Tensor, perturbed: Tensor, shown: Tensor, **_: object) -> Tensor:
        distance = 1 - shown.double().mean(1).sqrt()  # cosine distance from the image, which shows all patches
        return torch.exp(-(distance**2) / (2 * 0.25**2))

    captum = Lime(request.forward, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=nearness)
    return _surrogate(captum, request, samples, _regions(request.inputs, patch, features), baseline, seed)


@attribution("kernel_shap", needs_gradient=False)
def kernel_shap(
    request: AttributionRequest,
    *,
    samples: int | None = None,
    patch: Length = 1 / 8,
    features: Tensor | None = None,
    baseline: Baseline = 0.0,
    seed: int = 0,
) -> Tensor:
    """KernelSHAP: Shapley values of patches by weighted regression (Lundberg & Lee 2017, theorem 2).

    `samples` coalitions are drawn from the Shapley kernel; None takes 2 M + 2048 for M patches, as the authors' code does.
    `features` (H, W) gives each pixel the number of its region instead of the grid of patches. Images take the same
    draws, and are explained one after the other: `samples` evaluations and one regression each.
    """
    from captum.attr import KernelShap

    regions = _regions(request.inputs, patch, features)
    count = int(regions.max()) + 1
    if count < 2:
        raise SightlineError("kernel_shap: the whole image is one patch; at least 2 are needed")
    samples = 2 * count + 2048 if samples is None else samples
    return _surrogate(KernelShap(request.forward), request, samples, regions, baseline, seed)


def _surrogate(
    captum: "Lime | KernelShap",
    request: AttributionRequest,
    samples: int,
    regions: Tensor,
    baseline: Baseline,
    seed: int,
) -> Tensor:
    if samples < 2:
        raise SightlineError(f"samples is {samples}; expected at least 2")
    parts = []
    for one in request.split():
        with seeded(one.inputs.device, seed, "surrogate"):
            part = captum.attribute(
                one.inputs,
                baselines=one.baseline(baseline),
                additional_forward_args=(one.image_index,),
                feature_mask=regions,
                n_samples=samples,
                perturbations_per_eval=one.rows,
            )
        parts.append(part)
    return torch.cat(parts)


def _regions(inputs: Tensor, patch: Length, features: Tensor | None) -> Tensor:
    """The region (1, 1, H, W) that each pixel belongs to, counted from 0 without gaps."""
    height, width = inputs.shape[-2:]
    if features is None:
        rows, columns = (
            torch.arange(side, device=inputs.device) // _pixels(patch, side, "patch") for side in (height, width)
        )
        return (rows[:, None] * (int(columns[-1]) + 1) + columns)[None, None]
    if features.shape != (height, width) or features.is_floating_point():
        raise SightlineError(
            f"features has shape {tuple(features.shape)} and dtype {features.dtype}; expected integers {(height, width)}, "
            "the number of each pixel's region"
        )
    return features.to(inputs.device).unique(return_inverse=True)[1][None, None]


@EXPLAINERS.register("rise", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=False)
class RISE(Explainer):
    """RISE: the mean of random masks, weighted by the score of what each lets through (Petsiuk et al. 2018).

    The map is sum_n Y(x * M_n) M_n / (N p), with Y the explained score: the logit by default; the paper's probability is one
    function of the output away. Defaults are the paper's for VGG16 (section 4; it takes 8000 masks for ResNet-50).
    Hidden pixels are 0 in the units of the model's input, the mean colour where inputs are normalised. All images share
    the same masks.

    Args:
        masks: number of masks N, each one evaluation an image.
        cells: side s of the grid of random bits that is scaled up to a mask.
        shown: probability p that a bit is 1.
        seed: of the masks.
        raw: return the weighted means (B, H, W) themselves instead of maps in [0, 1].
        internal_batch_size: how many images go through the model at once; None chooses.
    """

    def __init__(
        self,
        masks: int = 4000,
        cells: int = 7,
        shown: float = 0.5,
        seed: int = 0,
        raw: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        if masks < 1 or cells < 1 or not 0 < shown <= 1:
            raise SightlineError(
                f"masks is {masks}, cells {cells} and shown {shown}; expected at least 1, 1 and a probability above 0"
            )
        InternalBatches(internal_batch_size)  # refuses a bad one
        self.masks, self.cells, self.shown, self.seed, self.raw, self.internal_batch_size = (
            masks,
            cells,
            shown,
            seed,
            raw,
            internal_batch_size,
        )

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Maps (B, H, W), in [0, 1] unless `raw`."""
        score = resolve_score(targets, model(inputs))
        of = torch.arange(len(inputs), device=inputs.device)

        def weighted(rows: int) -> Tensor:
            total = torch.zeros_like(inputs[:, 0], dtype=torch.promote_types(inputs.dtype, torch.float32))
            for masks in self._masks(inputs, max(1, rows // len(inputs))):
                for images, which in zip(inputs.split(rows), of.split(rows)):
                    masked = (images[:, None] * masks[:, None].to(images)).flatten(0, 1)
                    scores = score(model(masked), which.repeat_interleave(len(masks))).to(total)
                    total[which] += torch.einsum("bn,nhw->bhw", scores.unflatten(0, (-1, len(masks))), masks.to(total))
            return total / (self.masks * self.shown)

        maps = fitting(weighted, self.internal_batch_size, inputs)
        return maps if self.raw else normalize_maps(maps)

    def _masks(self, inputs: Tensor, count: int) -> Iterator[Tensor]:
        """All masks, (up to count, H, W) at a time: grids of bits, scaled up bilinearly and cropped at a random place."""
        device = inputs.device
        height, width = inputs.shape[-2:]
        cell = -(-height // self.cells), -(-width // self.cells)
        draw = generator(self.seed, "rise")
        bits = torch.rand(self.masks, self.cells, self.cells, generator=draw) < self.shown
        shifts = (torch.rand(self.masks, 2, generator=draw) * torch.tensor(cell)).long()
        size = (self.cells + 1) * cell[0], (self.cells + 1) * cell[1]
        for grids, corner in zip(bits.to(device).float().split(count), shifts.to(device).split(count)):
            large = F.interpolate(grids[:, None], size, mode="bilinear", align_corners=False)[:, 0]
            rows = corner[:, :1] + torch.arange(height, device=device)
            columns = corner[:, 1:] + torch.arange(width, device=device)
            which = torch.arange(len(grids), device=device)
            yield large[which[:, None, None], rows[:, :, None], columns[:, None, :]]
