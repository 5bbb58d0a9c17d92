"""What a model owes to the regions to avoid: energy of maps in them, and accuracy when marks go, come and change owners.

A mark is what is in an image's region to avoid, such as a stamp. It is removed by inpainting, widened by two pixels, because
resizing blurs it over its edge. Where a mark comes from another image, that image is of another class, drawn by the seed, and
the mark stays at its place. Other images are those of the whole dataset where `evaluate` runs on a loader of
`sightline.data` or on a list of batches, and of the batch anywhere else.

An image has no value (NaN) if something is missing: a known region, a mark, pixels next to it, or a mark of another class.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sightline._core.seeding import generator
from sightline._core.tensors import check_shape
from sightline.data.batch import Batch, non_empty
from sightline.data.batch_checks import check_avoid
from sightline.errors import SightlineError
from sightline.metric_base.base import ModelMetric, PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.metrics.accuracy import correct
from sightline.metrics.localization import energy_in_mask
from sightline.network.input_spec import InputSpec
from sightline.regions.background_sources import backgrounds_of_batches
from sightline.regions.backgrounds import Backgrounds
from sightline.regions.inpainting import inpaint, paste, widen

Change = Literal["removed", "pasted", "swapped"]


def energy_in_avoid(maps: Tensor, avoid: Tensor, has_avoid: Tensor | None = None) -> Tensor:
    """Return the share of the map's energy inside the region to avoid.

    Args:
        maps: (B, H, W), no value below 0.
        avoid: (B, H, W): uint8 with 0, 1 and 255 = ignore, or float in [0, 1], which weights the energy.
        has_avoid: (B,) bool, which images have a region to avoid; None = all.

    Returns:
        (B,) in [0, 1]; 0 for a map without energy, NaN without something to avoid.

    Raises:
        SightlineError: maps below 0, NaN, or regions of another size.
    """
    check_avoid(avoid, (len(maps), *maps.shape[1:]))
    return energy_in_mask(maps, avoid, has_avoid)


@register("energy_in_avoid")
class EnergyInAvoid(PerImageMetric):
    """Mean share of the map's energy inside the region to avoid, in [0, 1]; lower is better.

    References:
        Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks" (CVPR workshops 2020),
            section 4.3, whose energy-based pointing game this is, with the region to avoid instead of the object.

    Examples:
        >>> metric = sl.metrics.EnergyInAvoid()
        >>> metric.update(torch.tensor([[[1.0, 3.0]]]), avoid=torch.tensor([[[1, 0]]], dtype=torch.uint8))
        >>> metric.compute().item()
        0.25
    """

    needs_avoid: ClassVar[bool] = True
    higher_is_better = False

    def update(self, maps: Tensor, avoid: Tensor, has_avoid: Tensor | None = None) -> None:
        """Take a batch, as `energy_in_avoid` takes it."""
        self.update_batch(Observation(maps=maps, avoid=avoid, has_avoid=has_avoid))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`energy_in_avoid` of each image."""
        return energy_in_avoid(observation.require("maps"), observation.require("avoid"), observation.has_avoid)


class MarkMetric(ModelMetric):
    """Accuracy on images whose marks are changed.

    Args:
        seed: random seed of the image that lends its mark.
    """

    needs_maps: ClassVar[bool] = False
    needs_avoid: ClassVar[bool] = True
    change: ClassVar[Change]

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int = 0,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.seed = seed

    def update(  # type: ignore[override]
        self,
        images: Tensor,
        labels: Tensor,
        avoid: Tensor,
        has_avoid: Tensor | None = None,
        indices: Tensor | None = None,
        **known: Any,
    ) -> None:
        """Take a batch.

        Args:
            images: (B, C, H, W).
            labels: (B,) int64.
            avoid: (B, H, W): uint8 with 0, 1 and 255 = ignore, or float in [0, 1], where 0.5 and more is to be avoided.
            has_avoid: (B,) bool, which images have a region to avoid; None = all.
            indices: (B,) each image's place in its dataset, which keys draws; None = not known.
            **known: what else `Observation` names, such as `marks`.
        """
        self.update_batch(
            Observation(
                images, labels=labels, avoid=avoid, has_avoid=has_avoid, indices=indices, scorer=self.scorer, **known
            )
        )

    def compute_per_image(self, observation: Observation) -> Tensor:
        """1 where the model is right, else 0 (B,)."""
        scorer, labels = observation.require("scorer"), observation.require("labels")
        changed, known = observation.cached(changed_marks, self.change, self.seed)
        hits = torch.full((len(labels),), torch.nan, device=changed.device)
        if known.any():
            hits[known] = correct(scorer(changed[known]), labels[known])
        return hits


@register("mark_removed_accuracy")
class MarkRemovedAccuracy(MarkMetric):
    """Accuracy without the mark, over the images that have one, in [0, 1]; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 1] = 0.1  # green, with a red mark
        >>> images[:, 0, :4, :4] = 1
        >>> avoid = (images[:, 0] == 1).to(torch.uint8)
        >>> metric = sl.metrics.MarkRemovedAccuracy(model)
        >>> metric.update(images, torch.tensor([1]), avoid)
        >>> metric.compute().item()
        1.0
    """

    change = "removed"


@register("mark_pasted_accuracy")
class MarkPastedAccuracy(MarkMetric):
    """Accuracy with the mark of another class pasted on, over all images with a known region; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> images[0, 1], images[1, 0] = 0.1, 0.1  # a green image without a mark, a red one with a red mark
        >>> images[1, 0, :4, :4] = 1
        >>> avoid = (images[:, 0] == 1).to(torch.uint8)
        >>> metric = sl.metrics.MarkPastedAccuracy(model)
        >>> metric.update(images, torch.tensor([1, 0]), avoid)
        >>> metric.compute().item(), metric.n  # the green image turns red; no other class lends the red one a mark
        (0.0, 1)
    """

    change = "pasted"


@register("mark_swapped_accuracy")
class MarkSwappedAccuracy(MarkMetric):
    """Accuracy with the mark of another class instead of its mark, over the images that have one; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> images[0, 0, :4, :4], images[1, 1, :4, :4] = 1, 1  # marks that reveal the class
        >>> avoid = images.sum(1).to(torch.uint8)
        >>> metric = sl.metrics.MarkSwappedAccuracy(model)
        >>> metric.update(images, torch.tensor([0, 1]), avoid)
        >>> metric.compute().item()
        0.0
    """

    change = "swapped"


def changed_marks(observation: Observation, change: Change, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W) with their marks removed, pasted or swapped, and which of them (B,) bool are defined.

    Args:
        observation: with images, labels and regions to avoid.
        change: "removed": inpainted; "pasted": another class's mark is put on the unchanged image; "swapped": another class's
            mark is put on the image after its own was removed.
        seed: of whose mark an image gets.
    """
    images, labels, avoid = (observation.require(name) for name in ("images", "labels", "avoid"))
    check_avoid(avoid, (len(images), *images.shape[2:]))
    if labels.ndim != 1:
        raise SightlineError(
            "this needs images with one label each, because a mark has one class; these can have several"
        )
    known = torch.ones(len(images), dtype=torch.bool, device=images.device)
    if observation.has_avoid is not None:
        check_shape(observation.has_avoid, "has_avoid", (len(images),), dtype=torch.bool)
        known = observation.has_avoid
    own = _marks(avoid) & known[:, None, None]
    if change != "pasted":
        known = known & non_empty(own) & non_empty(~widen(own))
        images = inpaint(images, widen(own))
    if change == "removed":
        return images, known
    indices = torch.arange(len(images)) if observation.indices is None else observation.indices
    lenders = observation.marks or backgrounds_of_batches(
        [Batch(observation.require("images"), labels, avoid=avoid, has_avoid=observation.has_avoid, indices=indices)],
        "avoid",
    )
    changed, known = images.clone(), known.clone()
    for row in known.nonzero().flatten().tolist():
        found = find_mark(lenders, int(indices[row]), int(labels[row]), seed)
        if found is None:
            known[row] = False
            continue
        other, region = (each.to(images.device) for each in found)
        changed[row] = paste(images[row : row + 1], other[None].to(images), region[None])[0]
    return changed, known


def find_mark(lenders: Backgrounds, index: int, label: int, seed: int = 0) -> tuple[Tensor, Tensor] | None:
    """Return an image (C, H, W) of another class and its mark (H, W) bool, for the image at `index`; None if none has one.

    Args:
        lenders: the images with their regions to avoid.
        index: the place of the image in its dataset, which keys the draw.
        label: its class.
        seed: of the draw, first of the class and then of the image.
    """
    draw = generator(seed, index, "mark of another class")
    classes = lenders.labels[lenders.has_mask & (lenders.labels != label)].unique()
    for chosen in classes[torch.randperm(len(classes), generator=draw)].tolist():
        rows = (lenders.has_mask & (lenders.labels == chosen)).nonzero().flatten()
        for row in rows[torch.randperm(len(rows), generator=draw)].tolist():
            if row in lenders.unmarked:
                continue
            image, avoid = lenders.read(row)
            region = _marks(avoid)
            if region.any() and not region.all():
                return image, region
            lenders.unmarked.add(row)
    return None


def _marks(avoid: Tensor) -> Tensor:
    """Where marks are, bool of the shape of regions to avoid."""
    return avoid >= 0.5 if avoid.is_floating_point() else avoid == 1
