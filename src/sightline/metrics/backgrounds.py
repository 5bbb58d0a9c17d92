"""What a model answers to the object alone, to the background alone, and to the object on another background.

The variants are those of ImageNet-9 (see `sightline.data.backgrounds`), made of each image as the network sees it. The other
backgrounds are those of the whole dataset where `evaluate` runs on a loader of `sightline.data` or on a list of batches,
and of the batch anywhere else.

An image has no value (NaN) where it lacks a mask, an object, a background or an image to exchange it with.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from sightline.data.background_sources import backgrounds_of_batches
from sightline.data.backgrounds import MIXED, Fill, Variant, check_fill, is_whole, vary
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.metrics.accuracy import correct
from sightline.metrics.masked_images import MaskedImageMetric, label_masks
from sightline.metrics.observation import Observation
from sightline.metrics.registry import register
from sightline.network.input_spec import InputSpec


class BackgroundMetric(MaskedImageMetric):
    """A metric of a model's answers to images with their backgrounds changed.

    Args:
        model: a classifier that returns logits (B, K).
        fill: what stands instead of an object, see `sightline.data.backgrounds.background_of`: "tile" or "inpaint".
        seed: of whose background an image gets.
        input_spec: normalizes images in [0, 1].
        internal_batch_size: images in one call to the model.
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
    """Accuracy on the object alone, on black."""

    variant = "only_fg"


@register("no_fg_accuracy")
class NoForegroundAccuracy(VariantAccuracy):
    """Accuracy on the background with the object's shape in black; what is above chance, background or shape tells."""

    variant = "no_fg"
    higher_is_better = False


@register("only_bg_b_accuracy")
class BlackedBackgroundAccuracy(VariantAccuracy):
    """Accuracy on the background with the object's box in black; what is above chance, the background tells."""

    variant = "only_bg_b"
    higher_is_better = False


@register("only_bg_t_accuracy")
class TiledBackgroundAccuracy(VariantAccuracy):
    """Accuracy on the background that covers the object too; what is above chance, the background tells."""

    variant = "only_bg_t"
    higher_is_better = False


@register("mixed_same_accuracy")
class MixedSameAccuracy(VariantAccuracy):
    """Accuracy on the object before the background of another image of its class."""

    variant = "mixed_same"


@register("mixed_rand_accuracy")
class MixedRandAccuracy(VariantAccuracy):
    """Accuracy on the object before the background of an image of a random class."""

    variant = "mixed_rand"


@register("mixed_next_accuracy")
class MixedNextAccuracy(VariantAccuracy):
    """Accuracy on the object before the background of an image of the next class."""

    variant = "mixed_next"


@register("bg_gap")
class BGGap(BackgroundMetric):
    """BG-gap: accuracy before backgrounds of the own class less that before backgrounds of random classes.

    What the model owes to the background's class where the object is there; near 0 for one that looks at the object.
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
            "this needs images with one label each, so that a background has a class; these can have several"
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
