"""Random backgrounds: the baseline that uses masks without any explanation."""

import torch

from sightline._core.checks import check_fraction
from sightline._core.seeding import generator
from sightline.data.backgrounds import paint_over
from sightline.data.batch import Batch
from sightline.guides.base import Guide, GuidedModel, Need
from sightline.guides.registry import GUIDES


@GUIDES.register("random_background", needs_masks=True, needs_layer=False, pixel_space=False, reweights=False)
class RandomBackground(Guide):
    """Random backgrounds: each object on the background of another image of its batch, without any explanation.

    What a reviewer asks to compare a guide with that uses the same masks. The other image's own object is painted over
    from its surroundings. Only training batches change, and only images with a mask, among each other.

    Args:
        probability: that an image is changed.
        seed: of the pairing, which depends on the seed, the epoch and the indices of the images in the batch.
    """

    needs: Need | None = "masks"

    def __init__(self, probability: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        check_fraction(probability=probability)
        self.probability, self.seed = probability, seed

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """The batch with exchanged backgrounds; unchanged outside training."""
        if not objective.training or batch.masks is None or batch.has_mask is None:
            return batch
        who = range(len(batch)) if batch.indices is None else batch.indices.tolist()
        draw = generator(self.seed, objective.epoch, "random_background", *who)
        usable = batch.has_mask.nonzero().flatten()
        order = torch.randperm(len(usable), generator=draw).to(usable.device)
        changed = (torch.rand(len(usable), generator=draw) < self.probability).to(usable.device)
        taker, giver = usable[changed], usable[order][changed]

        masks = batch.object_masks()[:, None].to(batch.images.dtype)
        scenes = paint_over(batch.images[giver], masks[giver])
        images = batch.images.clone()
        images[taker] = masks[taker] * images[taker] + (1 - masks[taker]) * scenes
        return batch.changed(images=images)
