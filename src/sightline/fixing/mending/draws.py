"""Draws of images: unchanged, and with what must not matter exchanged."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline._core.seeding import generator
from sightline.data.batch import Batch
from sightline.regions.backgrounds import paint_over

AUGMENT = {"crop": 0.25, "jitter": 0.3}
BATCH = 32


@dataclass(frozen=True)
class Block:
    """The images that exchange what must not matter among each other in one pass over a dataset.

    Attributes:
        members: places in the dataset.
        partners: for each member the other members, by rank: the first of them that has a known region lends its own.
        shown: for each member, whether a region to avoid is replaced by that of the other image; else it is painted over.
    """

    members: list[int]
    partners: list[list[int]]
    shown: list[bool]


def blocks(labels: Tensor, number: int, seed: int, other_class: bool) -> list[Block]:
    """Return the blocks of one pass. They depend on the arguments alone, not on masks.

    Args:
        labels: (N,) of all images.
        number: of the pass; another number, other blocks and partners.
        seed: of all that is random.
        other_class: images of another class come first among the partners.
    """
    order = torch.randperm(len(labels), generator=generator(seed, number, "order"))
    found = []
    for step, members in enumerate(order.split(BATCH)):
        draw = generator(seed, number, step, "exchange")
        ranks = torch.rand(len(members), len(members), generator=draw)
        if other_class:
            ranks -= (labels[members][:, None] == labels[members]).to(ranks)
        places = ranks.argsort(1, descending=True).tolist()
        partners = [[int(members[place]) for place in row if place != own] for own, row in enumerate(places)]
        shown = (torch.rand(len(members), generator=draw) < 0.5).tolist()
        found.append(Block(members.tolist(), partners, shown))
    return found


def regions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return where the object is, and what must not matter, (B, S, S) float each; 0 in both where nothing is known.

    Of an image with a region to avoid and no mask, all the rest counts as the object.
    """
    size = (len(batch), *batch.images.shape[-2:])
    inside, outside = batch.images.new_zeros(size), batch.images.new_zeros(size)
    if batch.masks is not None and batch.has_mask is not None:
        known = batch.has_mask[:, None, None]
        inside = ((batch.masks == 1) & known).to(inside)
        outside = ((batch.masks == 0) & known).to(outside)
    if batch.avoid is not None and batch.has_avoid is not None:
        avoided = (batch.avoid == 1) & batch.has_avoid[:, None, None]
        free = batch.has_avoid if batch.has_mask is None else batch.has_avoid & ~batch.has_mask
        inside = torch.where(free[:, None, None], (~avoided).to(inside), inside * ~avoided)
        outside = torch.where(avoided, torch.ones_like(outside), outside)
    return inside, outside


def exchange(
    batch: Batch, inside: Tensor, outside: Tensor, rows: Sequence[int], givers: Sequence[int], shown: Tensor
) -> Tensor:
    """Return images (n, 3, S, S) whose outside is that of another image, whose own object is painted over.

    Args:
        batch: the images.
        inside: (B, S, S) where the object is.
        outside: (B, S, S) what must not matter.
        rows: (n,) which images are changed.
        givers: (n,) the other image of each.
        shown: (n,) bool, whether a region to avoid is replaced by that of the other image; else it is painted over.
    """
    taken, given = torch.tensor(rows), torch.tensor(givers)
    free = torch.ones(len(rows), dtype=torch.bool) if batch.has_mask is None else ~batch.has_mask[taken]
    images, other = batch.images[taken], batch.images[given]
    made = torch.empty_like(images)
    if (part := ~free).any():
        kept = inside[taken[part], None]
        made[part] = kept * images[part] + (1 - kept) * paint_over(other[part], inside[given[part], None])
    if free.any():
        cleaned = paint_over(images[free], outside[taken[free], None])
        visible = shown[free][:, None, None, None] & (outside[given[free], None] > 0)
        made[free] = torch.where(visible, other[free], cleaned)
    return made
