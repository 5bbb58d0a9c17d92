"""SO-Loss: the map should overlap the object ("Employing Explanations for Effective Image Classification", section III)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.checks import check_choice, check_fraction, check_non_negative, check_positive
from sightline._core.kernels import gaussian_blur, odd_kernel
from sightline.data.batch import Batch, non_empty
from sightline.errors import SightlineError
from sightline.explainers import resize_maps
from sightline.guides.balance import explain_with
from sightline.guides.registry import GUIDES
from sightline.network.views import choose_views
from sightline.objectives.base import Context, Guide, Need
from sightline.regions.batch_regions import check_source, object_region

Pooling = Literal["softmax", "logsumexp", "max", "mean"]
Target = Literal["label", "predicted"]
Resolution = Literal["input", "layer"]


@GUIDES.register("segment_overlap", needs_masks=True, needs_layer=True)
class SegmentOverlap(Guide):
    """SO-Loss: one minus the cosine similarity of the pooled maps of several views and the blurred mask.

    The total of the paper is beta * cross-entropy + (1 - beta) * SO-Loss; it prints the similarity itself as the loss,
    which training would minimize, so this takes one minus it. Its five arms (Table I) are beta = 1; 0 and 0.5, each with
    blur and with `blur=0`. An image without a mask, or with an empty one, is left out of the average; an all-zero map
    counts as 1 and has no gradient. Both are counted. An image with several labels has a map for each of them, compared with
    the mask of that class, and the mean of their losses (the paper's future work); a label without a mask is left out of it.

    Args:
        beta: weight of the cross-entropy, 1 - beta that of SO-Loss; the guide must be alone. Default: 0.5.
        weight: instead of `beta`: the weight of SO-Loss in sums, where the whole task loss has weight 1 (default 1).
        views: 1, 2, 4 or 8 elements of the dihedral group (the paper), or affine ones (its future work): `"scaling"`,
            `"affine"` or a list of options of `sightline.network.views.AffineView`; all go through the network in one batch.
        blur: kernel of the mask's Gaussian blur: None = a tenth of the input's side (the paper's 23 of 224 pixels),
            int = pixels, float = fraction of the side; 0 = none.
        pooling: how the views' maps become one: `"softmax"` (a softmax-weighted sum, which tends to the maximum),
            `"logsumexp"`, `"max"` or `"mean"`.
        temperature: of softmax and logsumexp, on maps whose maximum is 1.
        scale_views: divide each view's map by its own maximum before they are pooled; the paper does not say. Without it, the
            temperature is in the units of the maps, and a view with large values outvotes the others.
        explainer: a differentiable class activation map, by name or as a mapping of `name` and options. Or `"ablationcam"` or
            `"scorecam"` (the paper's future work): their channel weights are constants, computed by the model in eval mode, and
            the gradient goes through the activations alone. Each costs a run of the tail or of the model for every channel of
            every view; `{name: scorecam, top: 16}` runs 16 channels.
        target: whose map: that of the true `"label"` (the paper) or of the `"predicted"` class.
        region: `"masks"`, or `"avoid"`: the loss is then the cosine similarity itself, of the map and the region to avoid, so
            that it vanishes where the map leaves that region out; all else is free.
        resolution: where maps and masks are compared: `"input"` (the paper), or `"layer"` with masks reduced to it.

    References:
        Anonymous, "Employing Explanations for Effective Image Classification" (manuscript), section III.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> losses = sl.Objective(model, sl.SegmentOverlap(beta=0.5))(batch)
        >>> losses["loss"].backward()
        >>> losses["segment_overlap"].item() <= 1  # next to "task", the cross-entropy, and their weighted sum "loss"
        True
    """

    needs_tap = True
    needs: Need | None = "masks"
    multi_label = True

    def __init__(
        self,
        beta: float | None = None,
        weight: float | None = None,
        views: int | str | Sequence[Mapping[str, Any]] = 1,
        blur: int | float | None = None,
        pooling: Pooling = "softmax",
        temperature: float = 0.1,
        scale_views: bool = True,
        explainer: str | Mapping[str, Any] = "gradcam",
        target: Target = "label",
        resolution: Resolution = "input",
        region: str = "masks",
    ) -> None:
        super().__init__()
        if beta is not None and weight is not None:
            raise SightlineError(f"beta ({beta}) and weight ({weight}) both set the loss's share; give one of them")
        check_fraction(beta=0.5 if beta is None else beta)
        check_non_negative(weight=1.0 if weight is None else weight)
        check_positive(temperature=temperature)
        check_choice(Pooling, pooling=pooling)
        check_choice(Target, target=target)
        check_choice(Resolution, resolution=resolution)
        odd_kernel(blur, 224)  # raises for an impossible kernel now, and not at the first batch
        self.region = check_source(region, ("masks", "avoid"))
        self.needs = self.region
        self.explainer = explain_with(self, explainer)
        self.beta, self.weight = beta, weight
        self.views = choose_views(views)
        self.blur, self.pooling, self.temperature = blur, pooling, temperature
        self.scale_views = scale_views
        self.target, self.resolution = target, resolution

    def loss_weights(self, alone: bool) -> tuple[float, float]:
        """(beta, 1 - beta) alone, (1, weight) in a sum."""
        if alone and self.weight is None:
            beta = 0.5 if self.beta is None else self.beta
            return beta, 1 - beta
        if self.beta is not None:
            raise SightlineError(
                "beta mixes SO-Loss with the cross-entropy when it is alone; in a sum, give weight= instead"
            )
        return 1.0, 1.0 if self.weight is None else self.weight

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """Return which images (B,) have a mask with an object in it, or a region to avoid."""
        if self.region == "avoid":
            return {"segment_overlap": object_region(batch, "avoid").known}
        has_mask = torch.zeros(len(batch), dtype=torch.bool, device=batch.images.device)
        if batch.masks is not None and batch.has_mask is not None:
            has_mask = batch.has_mask & non_empty(batch.object_masks())
        return {"segment_overlap": has_mask}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """One minus the cosine similarity (B,) of each image's pooled map and blurred mask, averaged over its labels.

        With regions to avoid, the similarity itself.

        Raises:
            SightlineError: the target is the predicted class, and images can have several labels.
        """
        batch = context.batch
        if batch.multi_label and self.target == "predicted":
            raise SightlineError("target 'predicted' needs images with one label each; these can have several")
        losses, counted, labeled, with_map = [], [], [], []
        for classes, left in batch.each_label():
            targets = classes if self.target == "label" else context.logits.detach().argmax(1)
            pooled = self._pooled_maps(context, targets)
            masks = self._masks_of(classes, batch)
            loss = segment_overlap_loss(pooled, self._soft(masks.to(pooled.dtype), pooled.shape[-2:]))
            losses.append(1 - loss if self.region == "avoid" else loss)
            counted.append(left & non_empty(masks))
            with_map.append(left & (pooled.detach().amax((1, 2)) > 0))
            labeled.append(left)
        context.counts["segment_overlap/zero_maps"] = (
            torch.stack(labeled).any(0) & ~torch.stack(with_map).any(0)
        ).sum()
        shares = torch.stack(counted).to(losses[0])
        return {"segment_overlap": (torch.stack(losses) * shares).sum(0) / shares.sum(0).clamp_min(1)}

    def _masks_of(self, classes: Tensor, batch: Batch) -> Tensor:
        """Return the mask that the map (B, H, W) of a class (B,) is compared with."""
        if self.region == "avoid":
            return object_region(batch, "avoid").outside
        return torch.zeros_like(batch.images[:, 0]) if batch.masks is None else batch.masks_of(classes)

    def _pooled_maps(self, context: Context, targets: Tensor) -> Tensor:
        """Return the map (B, h, w) of each image's target, pooled over the views."""
        size = (context.batch.images.shape[-2], context.batch.images.shape[-1])
        maps = context.raw_maps(self.explainer, targets, self.views)  # (V, B, h, w)
        views, images = maps.shape[:2]
        if self.resolution == "input":
            maps = resize_maps(maps.flatten(0, 1), size).unflatten(0, (views, images))
        seen = torch.stack([view.seen((maps.shape[-2], maps.shape[-1])) for view in self.views])
        shown = None if seen.all() else seen.to(maps.device)
        return pool_views(maps, self.pooling, self.temperature, shown, self.scale_views)

    def _soft(self, masks: Tensor, size: Sequence[int]) -> Tensor:
        """Masks (B, H, W) blurred, at the size (h, w) of the maps."""
        masks = blur_masks(masks, self.blur)
        return F.interpolate(masks[:, None], size, mode="area")[:, 0] if self.resolution == "layer" else masks


def segment_overlap_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """One minus the cosine similarity of each map and its mask (section III, with the sign of a loss).

    Args:
        maps: (B, H, W), non-negative.
        masks: (B, H, W), non-negative.

    Returns:
        (B,) in [0, 1]; 1, with zero gradient, where the map or the mask is all zero.
    """
    a, b = maps.flatten(1), masks.flatten(1)
    empty = ((a == 0).all(1) | (b == 0).all(1))[:, None]
    a = torch.where(empty, torch.ones_like(a), a)  # a norm has no gradient at zero
    b = torch.where(empty, torch.ones_like(b), b)
    # Dividing by the largest value first keeps the squares of tiny maps from vanishing.
    a, b = a / a.detach().amax(1, keepdim=True), b / b.amax(1, keepdim=True)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return 1 - torch.where(empty[:, 0], torch.zeros_like(cosine), cosine)


def pool_views(
    maps: Tensor,
    pooling: Pooling = "softmax",
    temperature: float = 0.1,
    seen: Tensor | None = None,
    scale: bool = True,
) -> Tensor:
    """One map of several views, pixel by pixel; close to the maximum, and differentiable (section III, "PooledGC").

    One view is returned unchanged: cosine similarity does not see scale.

    Args:
        maps: (V, B, H, W), non-negative, turned back to the original orientation.
        pooling: `"softmax"`: sum_v softmax_v(g / T) g_v; `"logsumexp"`: T log mean_v exp(g_v / T); `"max"`; `"mean"`.
        temperature: T.
        seen: (V, H, W) bool, which pixels each view shows, every pixel by at least one; what a view does not show is left
            to the others. None = every view shows all.
        scale: divide each view's map by its own maximum first, so no view dominates by its scale.

    Returns:
        (B, H, W).
    """
    if len(maps) == 1:
        return maps[0]
    if seen is not None:
        maps = maps * seen[:, None]
    if scale:
        largest = maps.amax((2, 3), keepdim=True)
        maps = maps / torch.where(largest > 0, largest, torch.ones_like(largest))
    if pooling == "max":
        return maps.amax(0)
    number = len(maps) if seen is None else seen.sum(0)
    if pooling == "mean":
        return maps.sum(0) / number
    exponents = maps / temperature
    if seen is not None:
        exponents = exponents.masked_fill(~seen[:, None], -torch.inf)
    if pooling == "softmax":
        return (exponents.softmax(0) * maps).sum(0)
    return temperature * (exponents.exp().sum(0) / number).log()  # of the mean, so all-zero maps pool to zero


def blur_masks(masks: Tensor, blur: int | float | None) -> Tensor:
    """Masks (B, H, W) after a Gaussian blur; the kernel is that of `SegmentOverlap`, sigma = 0.3 ((k - 1) / 2 - 1) + 0.8."""
    kernel = odd_kernel(blur, min(masks.shape[-2:]))
    if kernel <= 1:
        return masks
    return gaussian_blur(masks, kernel)
