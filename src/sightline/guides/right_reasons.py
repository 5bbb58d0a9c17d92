"""Right for the right reasons: the gradient of the answer with respect to the pixels vanishes outside the object."""

import torch
from torch import Tensor

from sightline._core.checks import check_non_negative
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.balance import WeightedGuide
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Context, GuidedModel
from sightline.regions.batch_regions import Source, check_source, object_region


@GUIDES.register("right_reasons", needs_masks=True)
class RightReasons(WeightedGuide):
    """Right for the right reasons: a penalty on input gradients outside the object.

    The term of an image x with classes k and background pixels A is the sum over A of (d sum_k log p_k(x) / dx)^2. It needs
    a double backward of the whole network, where map-based guides need that of its tail. Its size grows with the number
    of pixels and classes: the paper weighs it with 1000 on small networks, and 1 can be much on a large one; with
    `normalize=True` the weight means the same everywhere.

    Args:
        weight: weight of the penalty, the paper's lambda.
        region: what tells the object from the background: `"masks"`, or `"boxes"` for the gradient outside the box; or
            `"avoid"` for the gradient in the region to avoid, such as a watermark, and nowhere else.
        reward: weight of a second part, 1 minus the object's share of the squared gradient of the whole image, which asks
            for reasons inside the object where the penalty alone is content with none.

    References:
        Ross et al., "Right for the Right Reasons: Training Differentiable Models by Constraining their Explanations"
            (IJCAI 2017), section 2.1: the right-reasons term of the loss.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.RightReasons(normalize=True))
        >>> objective(batch)["loss"].backward()
    """

    needs_pixels = True

    def __init__(
        self, weight: float = 1.0, region: str = "masks", reward: float = 0.0, normalize: bool = False
    ) -> None:
        super().__init__(weight, normalize)
        check_non_negative(reward=reward)
        self.region: Source = check_source(region)
        self.reward = reward
        if self.region == "avoid" and reward:
            raise SightlineError(
                f"reward is {reward}; expected 0 for the region 'avoid', which says nothing of the object"
            )
        self.needs = self.region

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """Return the same images as a leaf of the graph, so one forward pass also serves the input gradient."""
        return batch.changed(images=batch.images.detach().requires_grad_()) if torch.is_grad_enabled() else batch

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """Return which images (B,) have a known object, or a known region to avoid."""
        return {"right_reasons": object_region(batch, self.region).known}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the penalty (B,) of each image, and the reward's part."""
        region = object_region(context.batch, self.region)
        gradients = at_least_float32(input_gradients(context))
        squares = gradients.square().sum(1)  # (B, H, W)
        outside, inside = ((squares * part).sum((1, 2)) for part in (region.outside, region.inside))
        values = outside
        if self.reward:
            total = inside + outside
            values = values + self.reward * (1 - inside / torch.where(total > 0, total, torch.ones_like(total)))
        return {"right_reasons": self.balanced("right_reasons", values, region.known, context)}


def input_gradients(context: Context) -> Tensor:
    """d sum_k log p_k / dx (B, C, H, W) of each image, differentiable in its turn where the step is.

    Outside training, or where another guide's transform cut the graph, a separate forward pass finds it.
    """
    images, logits = context.batch.images, context.logits
    with torch.inference_mode(False), torch.enable_grad():
        if not (images.requires_grad and logits.requires_grad):
            images = images.detach().clone().requires_grad_()
            logits = context.classify(images)
        score = at_least_float32(logits).log_softmax(1).sum()
        (gradients,) = torch.autograd.grad(score, images, create_graph=context.differentiable, retain_graph=True)
    return gradients if context.differentiable else gradients.detach()
