"""Adversarial backgrounds: the background is changed to mislead the model, which learns to ignore it."""

from sightline._core.checks import check_count, check_fraction, check_positive
from sightline.attacks import sign_step
from sightline.attacks.steps import attacked, cross_entropy_gradient
from sightline.data.batch import Batch
from sightline.guides.registry import GUIDES
from sightline.objectives.base import Guide, GuidedModel
from sightline.regions.batch_regions import Source, check_source, object_region


@GUIDES.register("adversarial_background", needs_masks=True, pixel_space=True)
class AdversarialBackground(Guide):
    """Adversarial backgrounds: gradient-sign steps on the pixels outside the object, up the cross-entropy.

    Training on such images is adversarial training in which only the background may be attacked, so the model learns to be
    robust to it and nothing forbids it to look closely at the object. Every pixel of the object, and every one that the
    mask ignores, does not change. The model is attacked in eval mode, so batch norm sees each image once, as changed.

    Args:
        steps: gradient-sign steps, each a forward and a backward pass; 1 is FGSM.
        eps: the largest change of a pixel, in [0, 1].
        step_size: the change of a pixel in one step; None = `eps` for a single step, else 2.5 eps / steps, which lets a pixel
            go from any point to the border of what is allowed.
        region: the object by its `"masks"` or by `"boxes"`; or `"avoid"`: the region to avoid is attacked and nothing else.

    References:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018), section 2.1, for the steps.
        Goodfellow et al., "Explaining and Harnessing Adversarial Examples" (ICLR 2015), section 4, for a single step.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.AdversarialBackground(eps=0.03))
        >>> objective(batch)["loss"].backward()
    """

    needs_pixels = True

    def __init__(
        self, steps: int = 3, eps: float = 0.15, step_size: float | None = None, region: str = "masks"
    ) -> None:
        super().__init__()
        check_count(steps=steps)
        check_fraction(eps=eps)
        if step_size is not None:
            check_positive(step_size=step_size)
        self.steps, self.eps = steps, eps
        self.region: Source = check_source(region)
        self.step_size = min(eps, 2.5 * eps / steps) if step_size is None else step_size
        self.needs = self.region

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """Return the batch with attacked backgrounds; unchanged outside training.

        Raises:
            SightlineError: images outside [0, 1].
        """
        region = object_region(batch, self.region)
        if not objective.training or not region.known.any():
            return batch
        chosen, labels = batch.images.detach()[region.known], batch.labels[region.known]
        free = (region.outside == 1)[region.known]
        with attacked(objective.model, chosen, objective.input_spec) as (pixels, inputs_of):
            changed = pixels  # float32 at least: half precision is too coarse for small steps
            for _ in range(self.steps):
                gradient = cross_entropy_gradient(objective.model, changed, inputs_of, labels)
                changed = sign_step(changed, gradient, self.step_size, free.to(pixels))
                changed = pixels + (changed - pixels).clamp(-self.eps, self.eps)
        images = batch.images.detach().clone()
        images[region.known] = changed.to(images.dtype).where(free[:, None], chosen)
        return batch.changed(images=images)
