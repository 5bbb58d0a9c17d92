"""What a model answers to the object alone, to the background alone, and to the object on another background.

The variants are those of ImageNet-9 (see `sightline.regions.backgrounds`), made of each image as the network sees it. The other
backgrounds are those of the whole dataset where `evaluate` runs on a loader of `sightline.data` or on a list of batches,
and of the batch anywhere else.

An image has no value (NaN) where it lacks a mask, an object, a background or an image to exchange it with.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.accuracy import correct
from sightline.metrics.masked_images import MaskedImageMetric, label_masks
from sightline.network.input_spec import InputSpec
from sightline.regions.background_sources import backgrounds_of_batches
from sightline.regions.backgrounds import MIXED, Fill, Variant, check_fill, is_whole, vary


class BackgroundMetric(MaskedImageMetric):
    """A metric of a model's answers to images with their backgrounds changed.

    Args:
        fill: what stands instead of an object, see `sightline.regions.backgrounds.background_of`: "tile" or "inpaint".
        seed: random seed of the image that lends its background.

    References:
        Xiao, Engstrom, Ilyas, Madry, "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (ICLR 2021):
            Only-FG, No-FG, Only-BG-B, Only-BG-T, Mixed-Same, Mixed-Rand and Mixed-Next in section 2, the BG-gap in section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        fill: Fill = "tile",
        seed: int = 0,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        check_fill(fill)
        super().__init__(model, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.fill: Fill = fill
        self.seed = seed

    def hits(self, observation: Observation, variant: Variant) -> Tensor:
        """1 where the model is right about the variant, else 0 (B,)."""
        return observation.cached(_hits, variant, self.fill, self.seed)


class VariantAccuracy(BackgroundMetric):
    """Accuracy on one variant of the images."""

    variant: ClassVar[Variant]

    def compute_per_image(self, observation: Observation) -> Tensor:
        """1 where the model is right."""
        return self.hits(observation, self.variant)


@register("only_fg_accuracy")
class OnlyForegroundAccuracy(VariantAccuracy):
    """Accuracy on the object alone, on black, in [0, 1]; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 2:6, 2:6] = 1, 1
        >>> images[:, :, 2:6, 2:6] = torch.tensor([0, 1, 0])[:, None, None]  # a green object on a red background
        >>> metric = sl.metrics.OnlyForegroundAccuracy(model)
        >>> metric.update(images, torch.tensor([1]), masks)
        >>> metric.compute().item()
        1.0
    """

    variant = "only_fg"


@register("no_fg_accuracy")
class NoForegroundAccuracy(VariantAccuracy):
    """Accuracy on the background with the shape of the object in black; lower is better.

    A value above chance shows how well the background and the shape alone predict the class.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 2:6, 2:6] = 1, 1  # red, the object too
        >>> metric = sl.metrics.NoForegroundAccuracy(model)
        >>> metric.update(images, torch.tensor([0]), masks)
        >>> metric.compute().item()  # the background alone reveals the class
        1.0
    """

    variant = "no_fg"
    higher_is_better = False


@register("only_bg_b_accuracy")
class BlackedBackgroundAccuracy(VariantAccuracy):
    """Accuracy on the background with the box of the object in black; lower is better.

    A value above chance shows how well the background alone predicts the class.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 2:6, 2:6] = 1, 1  # red, the object too
        >>> metric = sl.metrics.BlackedBackgroundAccuracy(model)
        >>> metric.update(images, torch.tensor([0]), masks)
        >>> metric.compute().item()
        1.0
    """

    variant = "only_bg_b"
    higher_is_better = False


@register("only_bg_t_accuracy")
class TiledBackgroundAccuracy(VariantAccuracy):
    """Accuracy on the background alone, which also covers the object; lower is better.

    A value above chance shows how well the background alone predicts the class.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> images[:, 0], masks[:, 2:6, 2:6] = 1, 1
        >>> images[:, :, 2:6, 2:6] = torch.tensor([0, 1, 0])[:, None, None]  # a green object on a red background
        >>> metric = sl.metrics.TiledBackgroundAccuracy(model)
        >>> metric.update(images, torch.tensor([1]), masks)
        >>> metric.compute().item()
        0.0
    """

    variant = "only_bg_t"
    higher_is_better = False


@register("mixed_same_accuracy")
class MixedSameAccuracy(VariantAccuracy):
    """Accuracy on the object in front of the background of another image of its class; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8)
        >>> images[:2, 0], images[2:, 1], masks[:, 2:6, 2:6] = 1, 1, 1  # two red images, two green ones
        >>> metric = sl.metrics.MixedSameAccuracy(model)
        >>> metric.update(images, torch.tensor([0, 0, 1, 1]), masks)
        >>> metric.compute().item()
        1.0
    """

    variant = "mixed_same"


@register("mixed_rand_accuracy")
class MixedRandAccuracy(VariantAccuracy):
    """Accuracy on the object in front of the background of an image of a random class; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)
        >>> images[0, 0], images[1, 1], masks[:, 1:7, 1:7] = 1, 1, 1  # a red image and a green one; large objects
        >>> metric = sl.metrics.MixedRandAccuracy(model)
        >>> metric.update(images, torch.tensor([0, 1]), masks)
        >>> metric.compute().item()
        1.0
    """

    variant = "mixed_rand"


@register("mixed_next_accuracy")
class MixedNextAccuracy(VariantAccuracy):
    """Accuracy on the object in front of the background of an image of the next class; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)
        >>> images[0, 0], images[1, 1], masks[:, 3:5, 3:5] = 1, 1, 1  # a red image and a green one; small objects
        >>> metric = sl.metrics.MixedNextAccuracy(model)
        >>> metric.update(images, torch.tensor([0, 1]), masks)
        >>> metric.compute().item()
        0.0
    """

    variant = "mixed_next"


@register("bg_gap")
class BGGap(BackgroundMetric):
    """BG-gap: accuracy with backgrounds of the same class minus accuracy with those of random classes; lower is better.

    It says how much the class of the background changes the accuracy while the object is visible. It is near 0 for a model
    that uses the object.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images, masks = torch.zeros(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8)
        >>> images[:2, 0], images[2:, 1], masks[:, 1:7, 1:7] = 1, 1, 1  # two red images, two green ones; large objects
        >>> metric = sl.metrics.BGGap(model)
        >>> metric.update(images, torch.tensor([0, 0, 1, 1]), masks)
        >>> metric.compute().item()
        0.0
    """

    higher_is_better = False

    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the difference, -1, 0 or 1, of an image that has both versions."""
        return self.hits(observation, "mixed_same") - self.hits(observation, "mixed_rand")


def _hits(observation: Observation, variant: Variant, fill: Fill, seed: int) -> Tensor:
    """Whether the model is right (B,) about a variant of the images; NaN where an image has none."""
    images, labels, scorer = observation.require("images"), observation.require("labels"), observation.require("scorer")
    masks = label_masks(observation, "what is taken away becomes black")
    indices = torch.arange(len(images)) if observation.indices is None else observation.indices
    lenders = observation.backgrounds or backgrounds_of_batches(
        [Batch(images, labels, masks, observation.has_mask, indices=indices)]
    )
    if labels.ndim != 1 or lenders.labels.ndim != 1:
        raise SightlineError(
            "this needs images with one label each, because a background has one class; these can have several"
        )
    usable = torch.ones(len(images), dtype=torch.bool) if observation.has_mask is None else observation.has_mask
    rows, varied = [], []
    for row, (index, label, has_mask) in enumerate(zip(indices.tolist(), labels.tolist(), usable.tolist())):
        if not (has_mask and is_whole(masks[row], fill)):
            continue
        scene = None
        if variant in MIXED:
            scene = lenders.find(variant, index, label, fill, seed)
            if scene is None:
                continue
            scene = scene.to(images)
        rows.append(row)
        varied.append(vary(variant, images[row], masks[row], scene, fill))
    hits = torch.full((len(images),), torch.nan, device=images.device)
    if rows:
        hits[rows] = correct(scorer(torch.stack(varied)), labels[rows])
    return hits
