"""From samples to batches: the order and augmentation of an epoch depend on (seed, epoch, index) and nothing else."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from sightline._core.checks import check_count
from sightline._core.seeding import derive_seed, generator
from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.map_store import MapStore
from sightline.data.transforms import Saliency, augmentation, eval_transform, still_seen
from sightline.errors import SightlineError


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), so the process that loads the sample knows all that its randomness may depend on.

    In training, every process draws the same number of indices: the shuffled order is continued from its start until it
    divides. Process r takes every `world_size`-th from the r-th on, so the processes' batches of one step
    together are the batch of one process. In evaluation the order is that of the data set and nothing is repeated, so
    that no image counts twice; some processes then have one image less, and may have one batch less.

    Args:
        length: images in the data set.
        train: shuffle, and the same number on every process.
        seed: of the order.
        rank: this process, in 0 .. world_size - 1.
        world_size: how many processes there are.
    """

    def __init__(self, length: int, *, train: bool, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise SightlineError(f"rank is {rank} of world_size {world_size}; expected 0 <= rank < world_size")
        self.length = length
        self.train = train
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.strata: torch.Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentation come next."""
        self.epoch = epoch

    def balance(self, strata: torch.Tensor | None) -> None:
        """In training, draw as often from each stratum, (length,) such as the groups; None = every image once."""
        self.strata = strata

    def __len__(self) -> int:
        return len(range(self.rank, self._total(), self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: Sequence[int] = range(self.length)
        if self.train:
            shuffle = generator(self.seed, self.epoch, "order")
            if self.strata is None:
                order = torch.randperm(self.length, generator=shuffle).tolist()
            else:
                order = balanced_order(self.strata, shuffle).tolist()
        for place in range(self.rank, self._total(), self.world_size):
            yield self.epoch, order[place % self.length]

    def _total(self) -> int:
        return math.ceil(self.length / self.world_size) * self.world_size if self.train else self.length


def balanced_order(strata: torch.Tensor, shuffle: torch.Generator) -> torch.Tensor:
    """As many places as there are strata (N,), in random order, an equal share of them in each stratum.

    Within a stratum every member comes up before one comes up again. Where N is not divisible, the first strata get one more.
    """
    present = strata.unique()
    drawn = []
    for number, stratum in enumerate(present):
        members = (strata == stratum).nonzero().flatten()
        share = len(range(number, len(strata), len(present)))
        rounds = [torch.randperm(len(members), generator=shuffle) for _ in range(math.ceil(share / len(members)))]
        drawn.append(members[torch.cat(rounds)[:share]])
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=shuffle)]


class Transformed(Dataset[Sample]):
    """A data set seen through a transform; takes (epoch, index).

    Args:
        dataset: where the samples come from.
        transform: of image, mask and boxes; what it draws is keyed by (seed, epoch, index).
        seed: of the transform; None = it draws nothing, and the masks of parts are transformed too.
        maps: stored maps of the data set, which go through the transform with their images.
        indices: only these images, in this order; None = all.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: v2.Transform,
        seed: int | None,
        maps: MapStore | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.maps = maps
        self.indices = range(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, place = key
        index = self.indices[place]
        sample = self.dataset[index]
        saliency = None if self.maps is None else on_image(self.maps.read([index])[0], sample.image.shape[-2:])
        given = (sample.image, sample.mask, saliency, sample.boxes, sample.avoid)
        parts = None
        if self.seed is None:
            image, mask, saliency, boxes, avoid, parts = self.transform(*given, sample.parts)
        else:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which reseeds the GPUs too, and the fork does not restore those.
                torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index, "augmentation"))
                image, mask, saliency, boxes, avoid = self.transform(*given)
        seen = None if boxes is None else still_seen(boxes)
        return replace(sample, image=image, mask=mask, saliency=saliency, boxes=seen, parts=parts, avoid=avoid)


def on_image(saliency: torch.Tensor, size: Sequence[int]) -> Saliency:
    """Return a map (h, w) of an image's centre square, which evaluation sees, on the whole image (H, W); 0 outside it."""
    height, width = size
    side = min(height, width)
    square = interpolate(saliency[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0]
    whole = square.new_zeros(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)  # as torchvision's CenterCrop rounds
    whole[top : top + side, left : left + side] = square
    return Saliency(whole[None])


def collate(samples: list[Sample], masks: bool, boxes: bool = False, avoid: bool = False) -> Batch:
    """Make a batch of samples of one size.

    Args:
        samples: transformed samples, all of one size.
        masks: whether the data set has any masks; the batch then has the tensor even if none of its own images has one,
            so every process computes the same graph. An image without a mask gets "ignore" everywhere.
        boxes: whether the data set has any boxes; likewise.
        avoid: whether the data set has any regions to avoid; likewise.
    """
    images = torch.stack([s.image.as_subclass(torch.Tensor) for s in samples])
    groups = [s.group for s in samples if s.group is not None]
    padded, has_box = _pad([s.boxes for s in samples]) if boxes else (None, None)
    return Batch(
        images=images,
        labels=torch.stack([torch.as_tensor(s.label) for s in samples]),
        masks=_stack_masks([s.mask for s in samples], images) if masks else None,
        has_mask=torch.tensor([s.mask is not None for s in samples]) if masks else None,
        boxes=padded,
        has_box=has_box,
        indices=torch.tensor([s.index for s in samples]),
        groups=torch.tensor(groups) if groups else None,
        maps=torch.stack([s.saliency.as_subclass(torch.Tensor)[0] for s in samples if s.saliency is not None])
        if samples[0].saliency is not None
        else None,
        parts=_pad_parts([s.parts for s in samples]),
        avoid=_stack_masks([s.avoid for s in samples], images) if avoid else None,
        has_avoid=torch.tensor([s.avoid is not None for s in samples]) if avoid else None,
    )


def _stack_masks(masks: Sequence[torch.Tensor | None], images: torch.Tensor) -> torch.Tensor:
    """Masks of images as one tensor, "ignore" everywhere for an image without one."""
    known = [mask.as_subclass(torch.Tensor) for mask in masks if mask is not None]
    unknown = torch.full(known[0].shape if known else images.shape[-2:], 255, dtype=torch.uint8)
    return torch.stack([unknown if mask is None else mask.as_subclass(torch.Tensor) for mask in masks])


def _pad_parts(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Masks of parts of images as one tensor (B, P, H, W), empty ones added; None where no image has any."""
    known = [some.as_subclass(torch.Tensor) for some in parts if some is not None]
    if not known:
        return None
    padded = known[0].new_zeros(len(parts), max(map(len, known)), *known[0].shape[1:])
    for row, some in zip(padded, parts):
        if some is not None:
            row[: len(some)] = some
    return padded


def _pad(boxes: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of images as one tensor (B, N, 4), N at least 1, and which of them are real (B, N)."""
    counts = torch.tensor([0 if some is None else len(some) for some in boxes])
    has_box = torch.arange(max(1, int(counts.max()))) < counts[:, None]
    padded = torch.zeros(*has_box.shape, 4)
    padded[has_box] = torch.cat([torch.zeros(0, 4), *(s.as_subclass(torch.Tensor) for s in boxes if s is not None)])
    return padded, has_box


class _Collate:
    """`collate` for one data set; a class, because worker processes that do not fork must pickle it."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.masks, self.boxes, self.avoid = (
            bool(flags.any()) for flags in (dataset.has_mask, dataset.has_boxes, dataset.has_avoid)
        )

    def __call__(self, samples: list[Sample]) -> Batch:
        return collate(samples, self.masks, self.boxes, self.avoid)


def create_loader(
    dataset: ImageDataset,
    *,
    size: int,
    batch_size: int,
    train: bool,
    seed: int = 0,
    num_workers: int = 0,
    augment: Mapping[str, Any] | None = None,
    cache: bool = False,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    maps: MapStore | None = None,
    indices: Sequence[int] | None = None,
) -> "DataLoader[Sample]":
    """Batches of a data set: shuffled and augmented in training, in order and centre-cropped in evaluation.

    Call `loader.sampler.set_epoch(epoch)` before each epoch of training.

    Args:
        dataset: where the samples come from.
        size: side of the square images, in pixels.
        batch_size: images per batch, on this process.
        train: shuffle and augment.
        seed: of order and augmentation.
        num_workers: processes that load; 0 = this one. Neither this nor the number of processes changes what is drawn.
        augment: options of `train_transform`, in training.
        cache: load every image now, at most 1.5 x `size` on its shorter side, and keep it: decoding happens once.
            Maps are kept too.
        rank: this process, among those that share the data set.
        world_size: how many they are.
        drop_last: leave out a last batch that is not full.
        maps: stored maps of the data set (`sightline.maps`), to go with the images as `Batch.maps`.
        indices: only these images, in this order; None = all.

    Raises:
        SightlineError: an option is unknown or out of its range, no batch would be full, or maps are of another data set or
            not finished.
    """
    check_count(batch_size=batch_size)
    transform = augmentation(augment or {}, size) if train else eval_transform(size)
    length = len(dataset) if indices is None else len(indices)
    sampler = EpochSampler(length, train=train, seed=seed, rank=rank, world_size=world_size)
    if drop_last and len(sampler) < batch_size:
        raise SightlineError(f"batch_size is {batch_size} and drop_last is set; there are only {len(sampler)} images")
    if maps is not None:
        if maps.metadata["data"] != dataset.fingerprint:
            raise SightlineError(
                f"maps: those in {maps.path} are of another data set; store maps of this data with `sightline explain --store`"
            )
        maps.check_finished()
    if cache:
        dataset.keep_in_memory(side=math.ceil(1.5 * size))
        if maps is not None:
            maps.keep_in_memory()
    return DataLoader(
        Transformed(dataset, transform, seed if train else None, maps, indices),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_Collate(dataset),
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )


def own_batches(loader: Iterable[Batch], rank: int, size: int) -> Iterator[tuple[int, Batch]]:
    """Yield the batches that one of several processes works on, each with the number of images before it.

    Process r takes every `size`-th batch from the r-th on. The batches are those of one process: each image is seen with
    the same images, and its values are the same to the last bit. The images of other batches are read only where the
    loader is no `DataLoader` with places to divide.

    Args:
        loader: Yields batches always in the same order.
        rank: Number of this process, in 0 .. size - 1.
        size: Number of processes.
    """
    if size > 1 and isinstance(loader, DataLoader) and loader.batch_sampler is not None:
        batches = list(loader.batch_sampler)
        starts = list(accumulate(map(len, batches), initial=0))[rank:-1:size]
        yield from zip(starts, _with_batches(loader, batches[rank::size]), strict=True)
        return
    place = 0
    for number, batch in enumerate(loader):
        if number % size == rank:
            yield place, batch
        place += len(batch)


def _with_batches(loader: "DataLoader[Sample]", batches: list[Any]) -> "DataLoader[Sample]":
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )
