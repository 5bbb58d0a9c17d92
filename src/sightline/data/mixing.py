"""Mixup and CutMix, with what belongs to the images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from sightline._core.seeding import derive_seed
from sightline.data.batch import Batch

UNKNOWN = 255


@dataclass(frozen=True)
class Mixer:
    """Mixes each image of a training batch with the one before it, by torchvision's `MixUp` or `CutMix`.

    Images and targets are those of torchvision. Of the two images, the one with the greater share gives the label, the index
    and the group. Masks, boxes and maps are those of the mixed image for this label:

    - What the other image covers is not seen, so it is no object of the label.
    - The object of the other image counts where it has the same label. Where images can have several labels, the mixed image
      has those of both, and the objects of both count.
    - Regions to avoid are those of both images, since they count regardless of the class.
    - What is not annotated is marked 255 = ignore where it is seen.

    What is drawn depends on the seed, the epoch and the indices of the batch alone. Each of several processes mixes its own
    share of a batch, so their number changes what is mixed.

    Args:
        mixup: alpha of mixup's Beta distribution; 0 = no mixup.
        cutmix: alpha of CutMix's; 0 = no CutMix. Where both are above 0, each batch takes one of them by chance.
        probability: that a batch is mixed.
        classes: how many there are.
        seed: of what is drawn.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization" (ICLR 2018).
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (ICCV 2019).
    """

    mixup: float
    cutmix: float
    probability: float
    classes: int
    seed: int

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """Return the mixed batch; `targets` says how much of each class it shows."""
        who = range(len(batch)) if batch.indices is None else batch.indices.tolist()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, *who, "mixing"))
            if torch.rand(()) >= self.probability:
                return batch
            cuts = self.cutmix > 0 and (self.mixup == 0 or bool(torch.rand(()) < 0.5))
            transform = (v2.CutMix if cuts else v2.MixUp)(
                alpha=self.cutmix if cuts else self.mixup, num_classes=self.classes
            )
            state = torch.get_rng_state()
            drawn = transform.make_params([batch.images])
            torch.set_rng_state(state)  # for the same draw again
            images, targets = transform(batch.images, batch.labels)
        return _Mix(batch, drawn.get("box"), drawn["lam_adjusted" if cuts else "lam"]).batch(images, targets)


class _Mix:
    """A batch and what it is mixed with: the image before each, of which the one with the greater share comes first.

    Args:
        batch: the images.
        box: xyxy in pixels, where CutMix shows the other image; None = mixup.
        share: of the batch's own images.
    """

    def __init__(self, batch: Batch, box: tuple[int, int, int, int] | None, share: float) -> None:
        other = batch._map(lambda tensor: tensor.roll(1, 0))
        self.first, self.second = (batch, other) if share >= 0.5 else (other, batch)
        self.share = max(share, 1 - share)
        self.box, self.first_in_box = box, share < 0.5
        several = batch.multi_label
        same = torch.ones(len(batch), dtype=torch.bool, device=batch.labels.device)
        self.same = same if several else self.first.labels == self.second.labels
        self.several = several
        shown = torch.full(batch.images.shape[-2:], box is None or not self.first_in_box, device=batch.images.device)
        if box is not None:
            shown[box[1] : box[3], box[0] : box[2]] = self.first_in_box
        self.shown = shown

    def batch(self, images: Tensor, targets: Tensor) -> Batch:
        """Return the mixed batch."""
        first, second = self.first, self.second
        changed: dict[str, Tensor] = {"images": images, "targets": targets}
        if self.several:
            changed["labels"] = first.labels | second.labels
        if first.masks is not None and second.masks is not None and first.has_mask is not None:
            assert second.has_mask is not None
            each_class = first.masks.ndim == 4 and first.masks.shape[1] > 1
            counts = torch.ones_like(self.same) if each_class else self.same
            changed["masks"] = self.regions(first.masks, first.has_mask, second.masks, second.has_mask, counts)
            changed["has_mask"] = (first.has_mask | second.has_mask) if self.several else first.has_mask
        if first.avoid is not None and second.avoid is not None and first.has_avoid is not None:
            assert second.has_avoid is not None
            everywhere = torch.ones_like(self.same)
            changed["avoid"] = self.regions(first.avoid, first.has_avoid, second.avoid, second.has_avoid, everywhere)
            changed["has_avoid"] = first.has_avoid | second.has_avoid
        if first.boxes is not None and second.boxes is not None and first.has_box is not None:
            assert second.has_box is not None
            pairs = [self.seen(first.boxes, self.first_in_box), self.seen(second.boxes, not self.first_in_box)]
            known = [first.has_box & pairs[0][1], second.has_box & pairs[1][1] & self.same[:, None]]
            changed["boxes"] = torch.cat([pairs[0][0], pairs[1][0]], 1)
            changed["has_box"] = torch.cat(known, 1)
        if first.maps is not None and second.maps is not None:
            changed["maps"] = self.maps(first.maps, second.maps)
        if first.parts is not None and second.parts is not None:
            visible = self.shown if self.box is not None else torch.ones_like(self.shown)
            hidden = ~self.shown if self.box is not None else visible
            ours, theirs = first.parts * visible, second.parts * hidden * self.same[:, None, None, None]
            changed["parts"] = torch.cat([ours, theirs], 1)
        return first.changed(**changed)

    def regions(self, ours: Tensor, known: Tensor, theirs: Tensor, theirs_known: Tensor, counts: Tensor) -> Tensor:
        """Return the regions (B, ..., H, W) of the mixed images; the second image has none where it does not count."""
        shape = (-1, *[1] * (ours.ndim - 1))
        unknown = 0 if ours.is_floating_point() else UNKNOWN
        ours = torch.where(known.view(shape), ours, unknown)
        theirs = torch.where(theirs_known.view(shape), theirs, unknown) * counts.view(shape)
        if self.box is not None:
            return torch.where(self.shown, ours, theirs)
        either = torch.maximum(ours, theirs)  # 255 wins, where neither is 1
        return torch.where((ours == 1) | (theirs == 1), torch.ones_like(either), either)

    def maps(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Return the maps (B, H, W) of the mixed images."""
        same = self.same[:, None, None]
        if self.box is not None:
            return torch.where(self.shown, ours, theirs * same)
        return torch.where(same, torch.lerp(theirs, ours, self.share), ours)

    def seen(self, boxes: Tensor, in_box: bool) -> tuple[Tensor, Tensor]:
        """Return what is seen of boxes (B, N, 4) in CutMix's box or around it, and which (B, N) still have a pixel."""
        if self.box is None:
            return boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool)
        x1, y1, x2, y2 = self.box
        left, top, right, bottom = boxes.unbind(-1)
        if in_box:
            left, right, top, bottom = left.clamp(x1, x2), right.clamp(x1, x2), top.clamp(y1, y2), bottom.clamp(y1, y2)
        else:  # an edge moves where the box of CutMix covers all next to it
            across, down = (y1 <= top) & (bottom <= y2), (x1 <= left) & (right <= x2)
            left, right = (
                torch.where(across & (x1 <= left) & (left < x2), x2, left),
                torch.where(across & (x1 < right) & (right <= x2), x1, right),
            )
            top, bottom = (
                torch.where(down & (y1 <= top) & (top < y2), y2, top),
                torch.where(down & (y1 < bottom) & (bottom <= y2), y1, bottom),
            )
        kept = (right - left >= 1) & (bottom - top >= 1)
        return torch.where(kept[..., None], torch.stack([left, top, right, bottom], -1), 0.0), kept
