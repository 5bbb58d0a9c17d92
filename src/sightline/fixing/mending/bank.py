"""Features of draws: those of an unchanged image are computed once, those of a changed one when its regions change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.data.dataset import ImageDataset
from sightline.data.loader import Transformed, collate
from sightline.data.transforms import augmentation, eval_transform
from sightline.fixing.mending.draws import AUGMENT, Block, blocks, exchange, regions
from sightline.fixing.mending.finding import stretched
from sightline.fixing.mending.fitting import Rows, shares
from sightline.fixing.mending.marked import MarkedImages
from sightline.fixing.mending.trunk import Features, Trunk

CHUNK = 32

Pass = tuple[bool, int]
"""Whether images are cropped, flipped and jittered, and the number of the pass."""


@dataclass(frozen=True)
class _Known:
    """What is kept of one image in one pass.

    Attributes:
        digest: of the regions that the rest depends on.
        inside: (h, w) share of each place of the last feature map that the object covers.
        outside: likewise, of what must not matter.
        giver: the image whose region it got; None = nothing was exchanged.
    """

    digest: str
    inside: Tensor
    outside: Tensor
    giver: int | None


class Bank:
    """Features of images and of their exchanged forms by several networks.

    Args:
        images: without marks; they are kept in memory, scaled down.
        trunks: the networks.
        size: side of the input in pixels.
        seed: of crops and partners.
    """

    def __init__(self, images: ImageDataset, trunks: Sequence[Trunk], size: int, seed: int) -> None:
        self.images = MarkedImages(images, {}).keep_in_memory(round(1.5 * size))  # a copy of the given dataset
        self.trunks, self.size, self.seed = trunks, size, seed
        self._known: dict[tuple[Pass, int], _Known] = {}
        self._features: dict[tuple[int, Pass, int, str], Features] = {}
        self._fine: dict[int, Tensor] = {}

    def fine(self, number: int) -> Tensor:
        """Return the features (N, C, h, w) in which a network finds objects, of whole images stretched to a square."""
        if number not in self._fine:
            parts = []
            for start in range(0, len(self.images), CHUNK):
                places = range(start, min(start + CHUNK, len(self.images)))
                views = torch.stack([stretched(self.images[index], self.size) for index in places])
                features = self.trunks[number].features(views, fine=True).fine
                assert features is not None
                parts.append(features)
            self._fine[number] = torch.cat(parts)
        return self._fine[number]

    def rows(self, number: int, marked: MarkedImages, passes: Sequence[Pass], advance: Callable[[int], None]) -> Rows:
        """Return the rows of some passes by one network: each image unchanged, and those with a known region changed.

        Args:
            number: of the network.
            marked: the images with what is known of them.
            passes: which.
            advance: called after each pass with 1.
        """
        parts = []
        for each in passes:
            for block in blocks(self.images.labels, each[1], self.seed, other_class=not each[0]):
                self._complete(number, marked, each, block)
                parts.append(self._collected(number, each, block))
            advance(1)
        features, *others = zip(*parts, strict=True)
        return Rows(Features.join(list(features)), *(torch.cat(column) for column in others))

    def _complete(self, number: int, marked: MarkedImages, each: Pass, block: Block) -> None:
        """Compute what is missing or has changed in one block."""
        digests = _digests(marked, block)
        stale = [i for i in block.members if self._digest(each, i) != digests[i]]
        for index in stale:
            for other in range(len(self.trunks)):
                self._features.pop((other, each, index, "changed"), None)
        unseen = [i for i in block.members if (number, each, i, "unchanged") not in self._features]
        unchanged = [
            i for i in block.members
            if i in stale or (self._known[each, i].giver is not None and (number, each, i, "changed") not in self._features)
        ]  # fmt: skip
        needed = sorted({*unseen, *unchanged, *(g for i in unchanged if (g := _giver(marked, block, i)) is not None)})
        if not needed:
            return
        augment, pass_number = each
        transform = augmentation(AUGMENT, self.size) if augment else eval_transform(self.size)
        view = Transformed(marked, transform, self.seed if augment else None, indices=needed)
        batch = collate([view[pass_number, place] for place in range(len(needed))], masks=True, avoid=True)
        inside, outside = regions(batch)
        place_of = {index: place for place, index in enumerate(needed)}
        seen = outside.flatten(1).any(1)
        exchanged: list[tuple[int, int]] = []
        for index in unchanged:
            giver = _giver(marked, block, index)
            whole = index in marked.objects  # the giver's background is needed; else the region can be painted over
            if giver is not None and seen[place_of[index]] and (seen[place_of[giver]] or not whole):
                exchanged.append((index, giver))
        images = [batch.images[[place_of[i] for i in unseen]]]
        if exchanged:
            rows, givers = ([place_of[pair[side]] for pair in exchanged] for side in (0, 1))
            shown = torch.tensor([block.shown[block.members.index(index)] for index, _ in exchanged])
            images.append(exchange(batch, inside, outside, rows, givers, shown))
        keys = [*((i, "unchanged") for i in unseen), *((i, "changed") for i, _ in exchanged)]
        trunk = self.trunks[number]
        if keys:
            found = trunk.features(torch.cat(images))
            for place, (index, kind) in enumerate(keys):
                self._features[number, each, index, kind] = found[torch.tensor([place])]
        giver_of = dict(exchanged)
        grid = trunk.grid
        for index in unchanged:
            place = place_of[index]
            covered, rest = (shares(part[place : place + 1], grid)[0] for part in (inside, outside))
            self._known[each, index] = _Known(digests[index], covered, rest, giver_of.get(index))

    def _collected(self, number: int, each: Pass, block: Block) -> tuple[Features, *tuple[Tensor, ...]]:
        """Return the rows of a block."""
        keys = [(i, "unchanged") for i in block.members]
        keys += [(i, "changed") for i in block.members if self._known[each, i].giver is not None]
        labels = self.images.labels
        known = [self._known[each, index] for index, _ in keys]
        indices = torch.tensor([index for index, _ in keys])
        changed = torch.tensor([kind == "changed" for _, kind in keys])
        givers = torch.tensor([-1 if one.giver is None else one.giver for one in known])
        foreign = changed & (labels[givers] != labels[indices])
        return (
            Features.join([self._features[number, each, index, kind] for index, kind in keys]),
            torch.stack([one.inside for one in known]),
            torch.stack([one.outside for one in known]),
            labels[indices],
            indices,
            changed,
            foreign,
            torch.full((len(keys),), each[0]),
        )

    def _digest(self, each: Pass, index: int) -> str | None:
        known = self._known.get((each, index))
        return None if known is None else known.digest


def _giver(marked: MarkedImages, block: Block, index: int) -> int | None:
    """Return the image that lends its region to another; None where either has none."""
    if not marked.is_known(index):
        return None
    partners = block.partners[block.members.index(index)]
    return next((other for other in partners if marked.is_known(other)), None)


def _digests(marked: MarkedImages, block: Block) -> dict[int, str]:
    """Return what tells the regions of each image and of its giver from earlier ones."""
    givers = {index: _giver(marked, block, index) for index in block.members}
    return {
        i: f"{marked.digest(i)} {giver} {'' if giver is None else marked.digest(giver)}" for i, giver in givers.items()
    }
