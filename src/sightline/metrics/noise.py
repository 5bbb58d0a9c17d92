"""What noise on the object, or around it, does to accuracy: only the first affects a model that uses the object.

Moayeri et al., "A Comprehensive Study of Image Classification Model Sensitivity to Foregrounds, Backgrounds, and Visual
Attributes" (CVPR 2022); "Mitigating Bias: Enhancing Image Classification by Improving Model Explanations", Eq. 10.

Pixels marked 255 in a uint8 mask belong to neither region and get no noise. An image that lacks a mask, an object or a
background has no value (NaN), so both accuracies are over the same images.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from sightline._core.checks import check_choice, check_positive
from sightline._core.seeding import drawn
from sightline._core.tensors import check_pixels, check_shape
from sightline.data.batch import non_empty
from sightline.errors import SightlineError
from sightline.metric_base.base import CurveMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.accuracy import correct
from sightline.metrics.masked_images import MaskedImageMetric, label_masks
from sightline.network.input_spec import InputSpec
from sightline.regions.backgrounds import regions_of

Noise = Literal["gaussian", "l2"]

LEVELS: dict[str, tuple[float, ...]] = {
    "gaussian": tuple(sigma / 255 for sigma in range(30, 211, 30)),
    "l2": tuple(range(25, 201, 25)),
}


def noised(
    images: Tensor,
    region: Tensor,
    level: float,
    kind: Noise = "gaussian",
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Images with noise on a region, clamped to [0, 1].

    Every level and region takes its noise from one draw of a Gaussian for each image, so they differ by nothing else.

    Args:
        images: (B, C, H, W) in [0, 1].
        region: (B, H, W) bool, where the noise goes.
        level: "gaussian": its standard deviation, in [0, 1] pixels; "l2": the L2 norm of an image's noise, all channels
            together.
        kind: of the noise.
        seed: of the noise.
        indices: (B,) each image's place in its dataset, which keys its noise; None = the pixels key it.

    Raises:
        SightlineError: images outside [0, 1], a region of another size, or another kind.
    """
    check_pixels(images, change="noise is added to pixels")
    check_shape(region, "region", images[:, 0].shape, dtype=torch.bool, meaning="as the images")
    check_choice(Noise, kind=kind)
    return _noised(images, drawn(torch.randn, images, indices, seed, "noise"), region, level, kind)


def normalized_rfs(rfs: Tensor, accuracy: Tensor) -> Tensor:
    """RFS as a share of the largest that the mean accuracy allows: RFS / (2 min(a, 1 - a)), in [-1, 1]; 0 where a is 0 or 1.

    Args:
        rfs: (...), accuracy under background noise minus accuracy under foreground noise.
        accuracy: (...), the mean a of the two.
    """
    largest = 2 * torch.minimum(accuracy, 1 - accuracy)
    # Rounding of means leaves some 1e-8 instead of 0.
    return torch.where(largest > 1e-6, rfs / largest.clamp(min=1e-6), 0.0).clamp(-1, 1)


class NoiseMetric(MaskedImageMetric, CurveMetric):
    """A metric of the accuracy under noise on the object and on the background.

    The value of an image is the mean over the levels.

    Args:
        kind: "gaussian" or "l2".
        levels: of the noise (see `noised`); None = 30/255 to 210/255 in seven steps, or 25 to 200 in eight.
        seed: of the noise.

    References:
        Moayeri et al., "A Comprehensive Study of Image Classification Model Sensitivity to Foregrounds, Backgrounds, and Visual
            Attributes" (CVPR 2022), the definition of relative foreground sensitivity.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        kind: Noise = "gaussian",
        levels: Sequence[float] | None = None,
        seed: int = 0,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        check_choice(Noise, kind=kind)
        levels = LEVELS[kind] if levels is None else tuple(levels)
        if not levels:
            raise SightlineError(f"levels are {levels}; expected one or more, each above 0")
        for level in levels:
            check_positive(levels=level)
        super().__init__(model, levels, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.kind: Noise = kind
        self.levels, self.seed = levels, seed
        self.add_states()

    def add_states(self) -> None:
        """Add what a subclass keeps besides the values; the levels are known."""

    def hits(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """1 where the model is right, else 0, at each level (B, levels): under foreground and under background noise."""
        foreground, background = observation.cached(_hits, self.kind, self.levels, self.seed)
        return foreground, background


@register("foreground_noise_accuracy")
class ForegroundNoiseAccuracy(NoiseMetric):
    """Accuracy with noise on the object, averaged over the noise levels, in [0, 1].

    Lower is better: a model that uses the object loses accuracy.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 4:12, 4:12] = 1, 1
        >>> metric = sl.metrics.ForegroundNoiseAccuracy(model)
        >>> metric.update(images, torch.tensor([0]), masks)
        >>> metric.compute().item()  # red is too far ahead for noise to matter
        1.0
    """

    def curves(self, observation: Observation) -> Tensor:
        """1 where the model is right, at each level."""
        return self.hits(observation)[0]


@register("background_noise_accuracy")
class BackgroundNoiseAccuracy(NoiseMetric):
    """Accuracy with noise around the object, averaged over the noise levels, in [0, 1]; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 4:12, 4:12] = 1, 1
        >>> metric = sl.metrics.BackgroundNoiseAccuracy(model)
        >>> metric.update(images, torch.tensor([0]), masks)
        >>> metric.compute().item()
        1.0
    """

    def curves(self, observation: Observation) -> Tensor:
        """1 where the model is right, at each level."""
        return self.hits(observation)[1]


@register("rfs")
class RFS(NoiseMetric):
    """Relative foreground sensitivity: accuracy under background noise minus accuracy under foreground noise, in [-1, 1].

    Higher is better: above 0, noise on the object costs more than noise around it.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 4:12, 4:12] = 1, 1
        >>> metric = sl.metrics.RFS(model)
        >>> metric.update(images, torch.tensor([0]), masks)
        >>> metric.compute().item()  # no noise matters to this model
        0.0
    """

    def curves(self, observation: Observation) -> Tensor:
        """Return the difference at each level."""
        foreground, background = self.hits(observation)
        return background - foreground


@register("normalized_rfs")
class NormalizedRFS(RFS):
    """Relative foreground sensitivity as a share of the largest value that the accuracy allows, in [-1, 1].

    Higher is better. The division makes models of different accuracy comparable.

    Made of accuracies over all images (and levels, where it is one value); an image's value is its part in the RFS.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 4:12, 4:12] = 1, 1
        >>> metric = sl.metrics.NormalizedRFS(model)
        >>> metric.update(images, torch.tensor([0]), masks)
        >>> metric.compute().item()
        0.0
    """

    accuracies: list[Tensor]
    accuracy_total: Tensor

    def add_states(self) -> None:
        """Add the accuracies that normalize the value."""
        self.add_state("accuracies", [], dist_reduce_fx="cat")
        self.add_state("accuracy_total", torch.zeros(len(self.levels)), dist_reduce_fx="sum")

    def update_batch(self, observation: Observation) -> None:
        """Measure a batch, and keep the accuracies that normalize it."""
        super().update_batch(observation)
        accuracy = torch.stack(self.hits(observation)).mean(0)
        self.accuracies.append(accuracy.mean(1))
        self.accuracy_total = self.accuracy_total + accuracy.nansum(0).to(self.accuracy_total)

    def compute(self) -> Tensor:
        """Return the normalized RFS over all images; `curve` then holds the value at each level."""
        rfs = super().compute()
        self.curve = normalized_rfs(self.curve, self.accuracy_total / self.n)
        return normalized_rfs(rfs, dim_zero_cat(self.accuracies).double().nanmean().float())

    def resample(self, index: Tensor) -> Tensor:
        """Return the normalized RFS (R,) of R other draws of the images."""
        values, accuracies = self._gathered(), dim_zero_cat(self.accuracies)
        counted = ~values.isnan()
        return normalized_rfs(values[counted][index].mean(1), accuracies[counted][index].mean(1))


def _hits(observation: Observation, kind: Noise, levels: tuple[float, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Whether the model is right (B, levels) under foreground and under background noise; NaN without both regions."""
    images, labels, scorer = observation.require("images"), observation.require("labels"), observation.require("scorer")
    regions = regions_of(label_masks(observation, "noise is added to pixels"))
    defined = non_empty(regions[0]) & non_empty(regions[1])
    if observation.has_mask is not None:
        defined &= observation.has_mask
    hits = [torch.full((len(images), len(levels)), torch.nan, device=images.device) for _ in regions]
    if defined.any():
        noise = drawn(torch.randn, images, observation.indices, seed, "noise")[defined]
        for region, found in zip(regions, hits):
            for number, level in enumerate(levels):
                changed = _noised(images[defined], noise, region[defined], level, kind)
                found[defined, number] = correct(scorer(changed), labels[defined])
    return hits[0], hits[1]


def _noised(images: Tensor, noise: Tensor, region: Tensor, level: float, kind: Noise) -> Tensor:
    here = noise * region[:, None]
    if kind == "l2":
        norm = here.flatten(1).norm(dim=1)[:, None, None, None]
        here = here / torch.where(norm > 0, norm, 1)
    return (images + level * here).clamp(0, 1)
