"""Random backgrounds: the baseline that uses masks without any explanation."""

from typing import Literal

import torch
from torch import Tensor

from sightline._core.checks import check_choice, check_fraction
from sightline._core.seeding import generator
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Guide, GuidedModel
from sightline.regions.backgrounds import paint_over
from sightline.regions.batch_regions import check_source, object_region
from sightline.regions.inpainting import inpaint, paste, widen

Fill = Literal["random", "inpaint"]


@GUIDES.register("random_background", needs_masks=True)
class RandomBackground(Guide):
    """Random backgrounds: each object on the background of another image of its batch, without any explanation.

    The natural baseline of a guide that uses the same masks. The object of the other image is painted over
    from its surroundings. Only training batches change, and only images with a mask, among each other.

    With regions to avoid, what is in them is replaced instead, and all else stays. The shape of the region can still be seen
    where the fill does not fit.

    Args:
        probability: probability that an image is changed, in [0, 1].
        region: `"masks"`: what is outside the object is replaced; `"avoid"`: what is in the region to avoid.
        fill: of a region to avoid: `"random"` = the same place of another image of the batch, whose own region is filled from
            its surroundings; `"inpaint"` = the image's own surroundings (extra `masks`).
        seed: random seed of the pairing, which depends on the seed, the epoch and the indices of the images in the batch.

    References:
        Xiao, Engstrom, Ilyas, Madry, "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (ICLR 2021),
            section 3, which trains on such images.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.RandomBackground(probability=0.5))
        >>> objective(batch)["loss"].backward()
    """

    def __init__(self, probability: float = 1.0, seed: int = 0, region: str = "masks", fill: Fill = "random") -> None:
        super().__init__()
        check_fraction(probability=probability)
        check_choice(Fill, fill=fill)
        self.region = check_source(region, ("masks", "avoid"))
        if self.region == "masks" and fill != "random":
            raise SightlineError(f"fill is {fill!r}; expected 'random' for backgrounds, or region='avoid'")
        self.probability, self.seed, self.fill = probability, seed, fill
        self.needs = self.region

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """Return the batch with exchanged backgrounds, or without the regions to avoid; unchanged outside training."""
        given = (batch.masks, batch.has_mask) if self.region == "masks" else (batch.avoid, batch.has_avoid)
        if not objective.training or any(each is None for each in given):
            return batch
        known = batch.has_mask if self.region == "masks" else object_region(batch, "avoid").known
        assert known is not None  # there are masks
        numbers = torch.arange(len(batch), device=known.device) if batch.indices is None else batch.indices
        who, has_region = torch.stack([numbers, known.long()]).cpu()  # the one wait for the device
        draw = generator(self.seed, objective.epoch, "random_background", *who.tolist())
        usable = has_region.nonzero().flatten()
        order = torch.randperm(len(usable), generator=draw)
        changed = torch.rand(len(usable), generator=draw) < self.probability
        device = batch.images.device
        taker, giver = (some.to(device, non_blocking=True) for some in (usable[changed], usable[order][changed]))

        images = batch.images.clone()
        if self.region == "avoid":
            images[taker] = self._without_avoided(batch, taker, giver)
            return batch.changed(images=images)
        masks = batch.object_masks()[:, None].to(batch.images.dtype)
        scenes = paint_over(batch.images[giver], masks[giver])
        images[taker] = masks[taker] * images[taker] + (1 - masks[taker]) * scenes
        return batch.changed(images=images)

    def _without_avoided(self, batch: Batch, taker: Tensor, giver: Tensor) -> Tensor:
        """Return the receiving images with the regions to avoid filled in."""
        avoided = widen(object_region(batch, "avoid").outside > 0)
        if self.fill == "inpaint":
            return inpaint(batch.images[taker], avoided[taker])
        scenes = paint_over(batch.images[giver], avoided[giver, None].to(batch.images.dtype))
        return paste(batch.images[taker], scenes, avoided[taker])
