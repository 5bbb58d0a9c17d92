"""The images of a loader or of batches as backgrounds for other images, or as those whose marks others get."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from sightline.data.batch import Batch, class_masks
from sightline.data.loader import Transformed
from sightline.regions.backgrounds import Backgrounds

Lent = Literal["masks", "avoid"]
"""What tells the part that is lent from the rest: the masks of objects, or the regions to avoid."""


def backgrounds_of(loader: Iterable[Batch], lent: Lent = "masks") -> Backgrounds | None:
    """Return the backgrounds of all images of a loader of `sightline.data` or of a list of batches; else None."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Transformed):
        whole = Transformed(dataset.dataset, dataset.transform, dataset.seed)
        images = dataset.dataset

        def read(row: int) -> tuple[Tensor, Tensor]:
            sample = whole[0, row]
            mask = sample.mask if lent == "masks" else sample.avoid
            assert mask is not None  # the flags guarantee it
            return sample.image.as_subclass(Tensor), mask.as_subclass(Tensor)

        flags = images.has_mask if lent == "masks" else images.has_avoid
        return Backgrounds(images.labels, flags, torch.arange(len(images)), read)
    return backgrounds_of_batches(loader, lent) if isinstance(loader, Sequence) and len(loader) else None


def backgrounds_of_batches(batches: Sequence[Batch], lent: Lent = "masks") -> Backgrounds:
    """Return the backgrounds of all images of some batches."""
    places = [(batch, row) for batch in batches for row in range(len(batch))]

    def read(row: int) -> tuple[Tensor, Tensor]:
        batch, place = places[row]
        here = slice(place, place + 1)
        if lent == "avoid":
            assert batch.avoid is not None  # the flags guarantee it
            return batch.images[place], batch.avoid[place]
        assert batch.masks is not None
        return batch.images[place], class_masks(batch.masks[here], batch.labels[here])[0]

    known = [batch.has_mask if lent == "masks" else batch.has_avoid for batch in batches]
    ends = torch.tensor([len(batch) for batch in batches]).cumsum(0).tolist()
    return Backgrounds(
        torch.cat([b.labels for b in batches]).cpu(),
        torch.cat([torch.zeros(len(b), dtype=torch.bool) if f is None else f.cpu() for b, f in zip(batches, known)]),
        torch.cat(
            [torch.arange(e - len(b), e) if b.indices is None else b.indices.cpu() for b, e in zip(batches, ends)]
        ),
        read,
    )
