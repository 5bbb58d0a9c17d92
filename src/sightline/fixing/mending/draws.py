"""Draws of images: as they are, and with what must not matter exchanged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from sightline._core.seeding import generator
from sightline.data.backgrounds import paint_over
from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset
from sightline.data.loader import EpochSampler, create_loader

AUGMENT = {"crop": 0.25, "jitter": 0.3}
BATCH = 32


@dataclass(frozen=True)
class Draw:
    """Images of one pass over a dataset.

    Attributes:
        images: (n, 3, S, S) in [0, 1].
        inside: (n, S, S) float, where the object is; 0 where nobody knows.
        outside: (n, S, S) float, what must not matter: the background of a known object, and the region to avoid.
        labels: (n,).
        indices: (n,) places in the dataset.
        changed: (n,) bool, whether what must not matter was exchanged.
        foreign: (n,) bool, whether it was exchanged with an image of another class.
    """

    images: Tensor
    inside: Tensor
    outside: Tensor
    labels: Tensor
    indices: Tensor
    changed: Tensor
    foreign: Tensor


def draws(dataset: ImageDataset, size: int, number: int, seed: int, augment: bool = True) -> Iterator[Draw]:
    """Yield batches of one pass: each image as it is, and each one with a known region with what lies outside exchanged.

    Args:
        dataset: images with masks or regions to avoid, some or all.
        size: side of the images in pixels.
        number: of the pass; another number, other crops, flips, colors and partners.
        seed: of all that is random.
        augment: crop, flip and jitter, and exchange with any other image; else the centre square, and exchange with an image
            of another class.
    """
    order = torch.randperm(len(dataset), generator=generator(seed, number, "order")).tolist()
    loader = create_loader(
        dataset,
        size=size,
        batch_size=BATCH,
        train=augment,
        seed=seed,
        augment=AUGMENT if augment else None,
        indices=order,
    )
    cast(EpochSampler, loader.sampler).set_epoch(number)
    for step, batch in enumerate(loader):
        inside, outside = regions(batch)
        assert batch.indices is not None
        unchanged = torch.zeros(len(batch), dtype=torch.bool)
        yield Draw(batch.images, inside, outside, batch.labels, batch.indices, unchanged, unchanged)
        usable = outside.flatten(1).any(1)
        if usable.sum() > 1:
            draw = generator(seed, number, step, "exchange")
            rows = usable.nonzero()[:, 0]
            givers = rows[_partners(batch.labels[rows], draw, other_class=not augment)]
            images = exchange(batch, inside, outside, rows, givers, draw)
            foreign = batch.labels[givers] != batch.labels[rows]
            known = inside[rows], outside[rows], batch.labels[rows], batch.indices[rows]
            yield Draw(images, *known, ~unchanged[rows], foreign)


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
    batch: Batch, inside: Tensor, outside: Tensor, rows: Tensor, givers: Tensor, draw: torch.Generator
) -> Tensor:
    """Return images (n, 3, S, S) whose outside is that of another image, whose own object is painted over.

    A region to avoid is painted over, and in half of the images the region of the other image is put on it.

    Args:
        batch: the images.
        inside: (B, S, S) where the object is.
        outside: (B, S, S) what must not matter.
        rows: (n,) which images are changed.
        givers: (n,) the other image of each.
        draw: of the half.
    """
    free = torch.ones(len(rows), dtype=torch.bool) if batch.has_mask is None else ~batch.has_mask[rows]
    images, other = batch.images[rows], batch.images[givers]
    kept = inside[rows, None]
    swapped = kept * images + (1 - kept) * paint_over(other, inside[givers, None])
    cleaned = paint_over(images, outside[rows, None])
    shown = (torch.rand(len(rows), generator=draw) < 0.5)[:, None, None, None]
    marked = torch.where(shown & (outside[givers, None] > 0), other, cleaned)
    return torch.where(free[:, None, None, None], marked, swapped)


def _partners(labels: Tensor, draw: torch.Generator, other_class: bool) -> Tensor:
    """Return another image for each of (n,) images, in random order; of another class, where there is one."""
    values = torch.rand(len(labels), len(labels), generator=draw)
    values.fill_diagonal_(-2)
    if other_class:
        values -= (labels[:, None] == labels).to(values)
    return values.argmax(1)
