"""The images of a loader or of batches as backgrounds for other images."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sightline.data.backgrounds import Backgrounds
from sightline.data.batch import Batch, class_masks
from sightline.data.loader import Transformed


def backgrounds_of(loader: Iterable[Batch]) -> Backgrounds | None:
    """Return the backgrounds of all images of a loader of `sightline.data` or of a list of batches; else None."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Transformed):
        whole = Transformed(dataset.dataset, dataset.transform, dataset.seed)
        images = dataset.dataset

        def read(row: int) -> tuple[Tensor, Tensor]:
            sample = whole[0, row]
            assert sample.mask is not None  # has_mask said so
            return sample.image.as_subclass(Tensor), sample.mask.as_subclass(Tensor)

        return Backgrounds(images.labels, images.has_mask, torch.arange(len(images)), read)
    return backgrounds_of_batches(loader) if isinstance(loader, Sequence) and len(loader) else None


def backgrounds_of_batches(batches: Sequence[Batch]) -> Backgrounds:
    """Return the backgrounds of all images of some batches."""
    places = [(batch, row) for batch in batches for row in range(len(batch))]

    def read(row: int) -> tuple[Tensor, Tensor]:
        batch, place = places[row]
        assert batch.masks is not None  # has_mask said so
        return batch.images[place], class_masks(batch.masks[place : place + 1], batch.labels[place : place + 1])[0]

    ends = torch.tensor([len(batch) for batch in batches]).cumsum(0).tolist()
    return Backgrounds(
        torch.cat([b.labels for b in batches]).cpu(),
        torch.cat([torch.zeros(len(b), dtype=torch.bool) if b.has_mask is None else b.has_mask.cpu() for b in batches]),
        torch.cat(
            [torch.arange(e - len(b), e) if b.indices is None else b.indices.cpu() for b, e in zip(batches, ends)]
        ),
        read,
    )
