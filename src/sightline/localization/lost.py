"""LOST: an object's box from a self-supervised transformer that has seen no label.

Siméoni et al., "Localizing Objects with Self-Supervised Transformers and no Labels" (BMVC 2021).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from sightline._core.checks import check_count
from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import check_finite, check_images, check_shape
from sightline.errors import SightlineError
from sightline.localization.keys import last_keys, patch_size
from sightline.network.input_spec import InputSpec


@dataclass(frozen=True)
class Discovery:
    """What LOST finds in each image.

    Attributes:
        seeds: (B,) int64, the patch that the object grows from, in row order.
        expanded: (B, h * w) bool, the patches that vote for the object; they are like the seed.
        regions: (B, h, w) bool, the patches that are like those that vote.
        boxes: (B, 4) float xyxy in patches: the part of the region that holds the seed.
    """

    seeds: Tensor
    expanded: Tensor
    regions: Tensor
    boxes: Tensor


def discover(keys: Tensor, grid: tuple[int, int], candidates: int = 100) -> Discovery:
    """LOST on the keys of some images.

    Patches p and q are similar where s_pq = k_p . k_q >= 0; the degree of a patch is the number of those that are like it. An
    object is smaller than its background: the seed is the patch of least degree. Those of the `candidates` patches of
    least degree that are like the seed vote: the region is where their similarities sum to 0 or more. The box is that of the
    region's part, connected by the patches' sides, that holds the seed; of the seed alone where the region does not hold it.

    Args:
        keys: (B, h * w, C), one for each patch in row order.
        grid: (h, w).
        candidates: how many patches may vote, of all if these are fewer; 100 in the paper.

    Raises:
        SightlineError: keys of another shape, or that are not finite, or no candidate.
    """
    height, width = grid
    check_shape(keys, "keys", ("B", height * width, "C"), meaning="one for each patch")
    check_finite(keys, "keys", "is the model finite on these images?")
    check_count(candidates=candidates)
    keys = keys.float()
    similarity = keys @ keys.transpose(1, 2)
    similar = similarity >= 0
    order = similar.sum(2).argsort(dim=1, stable=True)  # ties by place
    seeds = order[:, 0]
    few = torch.zeros_like(similar[:, 0]).scatter_(1, order[:, :candidates], True)
    expanded = few & similar[torch.arange(len(keys), device=keys.device), seeds]
    votes = (similarity * expanded[:, :, None]).sum(1)
    regions = (votes >= 0).unflatten(1, grid)
    parts = [box_around(region, divmod(seed, width)) for region, seed in zip(regions.cpu().numpy(), seeds.tolist())]
    return Discovery(seeds, expanded, regions, torch.tensor(parts, dtype=torch.float32, device=keys.device))


def lost(
    model: nn.Module,
    images: Tensor,
    input_spec: InputSpec | None = None,
    *,
    size: int | None = None,
    candidates: int = 100,
    internal_batch_size: int | None = None,
) -> Tensor:
    """Find the box of one object in each image by LOST.

    Images are resized so both sides are divisible by the patch; sides are rounded, not padded, because a patch of
    padding is unlike all others and would be taken for an object.

    Args:
        model: a vision transformer trained without labels, such as timm's DINO or DINOv2 (see `last_keys`).
        images: (B, 3, H, W); in [0, 1] with an input spec, else as the model takes them.
        input_spec: normalises the images inside; its size does not count.
        size: the shorter side at which the model sees them, about; None = their own.
        candidates: as for `discover`.
        internal_batch_size: images in one call to the model; None chooses.

    Returns:
        Boxes (B, 4) xyxy in pixels of the images, within them.

    Raises:
        SightlineError: images or model are not as above.
    """
    check_images(images)
    if size is not None and size < 1:
        raise SightlineError(f"size is {size}; expected a positive number of pixels, or None")
    height, width = images.shape[-2:]
    scale = 1.0 if size is None else size / min(height, width)
    sides = tuple(
        max(1, round(scale * side / patch)) * patch for side, patch in zip((height, width), patch_size(model))
    )
    seen = images
    if sides != (height, width):
        seen = F.interpolate(images, sides, mode="bilinear", align_corners=False, antialias=True)
    if input_spec is not None:
        seen = input_spec.normalize(seen)

    def boxes_of(start: int, stop: int) -> Tensor:
        keys, (rows, columns) = last_keys(model, seen[start:stop])
        boxes = discover(keys, (rows, columns), candidates).boxes
        return boxes * boxes.new_tensor([width / columns, height / rows, width / columns, height / rows])

    return InternalBatches(internal_batch_size).map(boxes_of, len(seen), seen)


def box_around(region: np.ndarray, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the tight box xyxy of the part of a region that holds a place (row, column); of the place alone if none does.

    Args:
        region: (H, W) bool.
        place: where to look.
    """
    parts, _ = ndimage.label(region)
    number = parts[place]
    if number == 0:
        row, column = place
        return column, row, column + 1, row + 1
    rows, columns = ndimage.find_objects(parts)[number - 1]
    return columns.start, rows.start, columns.stop, rows.stop
