"""ImageNet-9's variants of any data set with masks: objects without backgrounds, backgrounds without objects, and mixed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from sightline._core.checks import check_count
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.data.transforms import Resize
from sightline.errors import SightlineError
from sightline.regions.backgrounds import (
    MIXED,
    VARIANTS,
    Backgrounds,
    Fill,
    Variant,
    background_of,
    check_fill,
    check_variant,
    is_whole,
    vary,
)


class MaskedImages:
    """The images of a data set that all variants exist of, as squares; the variants of one data set share them.

    These are the images with a mask that holds an object and leaves a background, and whose class and next class have another
    such image. Every mask is read once, when this is made.

    Args:
        objects: images, some or all of them with masks.
        size: side of the squares, in pixels: the shorter side is resized to it, and the centre kept.
        fill: see `sightline.regions.backgrounds.background_of`.
        seed: of whose background an image gets.

    Attributes:
        indices: the images, as indices into `objects`.
        givers: for each mixed variant, whose background each of them gets, as places in `objects`.

    Raises:
        SightlineError: no image has all variants, or a value is out of its range.
    """

    def __init__(self, objects: ImageDataset, *, size: int = 256, fill: Fill = "tile", seed: int = 0) -> None:
        check_count(8, size=size)
        check_fill(fill)
        objects.check_single_label("a class of the background")
        self.objects, self.size, self.fill, self.seed = objects, size, fill, seed
        self._square = v2.Compose([Resize(size), v2.CenterCrop(size)])
        masked = objects.has_mask.nonzero().flatten().tolist()
        whole = dict.fromkeys(place for place in masked if is_whole(self.read(place)[1], fill))  # a set in order
        lenders = Backgrounds(objects.labels, objects.has_mask, torch.arange(len(objects)), self.read)
        self.indices: list[int] = []
        self.givers: dict[Variant, list[int]] = {variant: [] for variant in MIXED}
        for place in whole:
            label = int(objects.labels[place])
            drawn = [next((g for g in lenders.draw(v, place, label, seed) if g in whole), None) for v in MIXED]
            if None in drawn:
                continue
            self.indices.append(place)
            for variant, giver in zip(MIXED, drawn):
                self.givers[variant].append(giver)  # type: ignore[arg-type]
        if not self.indices:
            raise SightlineError(
                f"none of the {len(objects)} images has all variants: {len(masked)} have masks, and "
                f"{len(whole)} of these an object and a background; each class needs two such images"
            )

    def read(self, place: int) -> tuple[Tensor, Tensor]:
        """Read the image (3, S, S) uint8 and its mask (S, S) uint8."""
        sample = self.objects[place]
        image, mask = self._square(sample.image, sample.mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)


class BackgroundVariant(ImageDataset):
    """A data set in one of ImageNet-9's variants; groups of the mixed ones are pairs (class, class of the background).

    The variants of one `MaskedImages` are of the same images in the same order. Where the object does not show, the mask is
    empty. Images left out are named in `skipped`.

    Args:
        squares: the images.
        variant: see `sightline.regions.backgrounds.vary`.

    Raises:
        SightlineError: there is no such variant.
    """

    def __init__(self, squares: MaskedImages, variant: Variant) -> None:
        check_variant(variant)
        self.squares, self.variant = squares, variant
        objects, places = squares.objects, squares.indices
        labels = objects.labels[places]
        self.givers = squares.givers.get(variant)
        pairs = None
        if self.givers is not None:
            pairs = (labels * len(objects.classes) + objects.labels[self.givers]).tolist()
        self._group_ids = pairs
        names = [f"{name} on {other} backgrounds" for name in objects.classes for other in objects.classes]
        super().__init__(
            objects.classes,
            labels.tolist(),
            [True] * len(places),
            groups=names if pairs else (),
            group_ids=pairs,
            identity=(objects.fingerprint, variant, squares.size, squares.fill, places, self.givers),
        )
        kept = set(places)
        self.skipped = [*objects.skipped, *(objects.path(p) for p in range(len(objects)) if p not in kept)]

    def origins(self, index: int) -> list[tuple[ImageDataset, int]]:
        """Return the image to which the label belongs, and the one that lends the background."""
        places = [self.squares.indices[index], *([] if self.givers is None else [self.givers[index]])]
        return [(self.squares.objects, place) for place in places]

    def load(self, index: int) -> Sample:
        """Compose an image."""
        place, fill = self.squares.indices[index], self.squares.fill
        image, mask = self.squares.read(place)
        scene = None
        if self.givers is not None:
            scene = background_of(*self.squares.read(self.givers[index]), fill)
        shows = self.variant not in ("no_fg", "only_bg_b", "only_bg_t")
        return Sample(
            image=tv_tensors.Image(vary(self.variant, image, mask, scene, fill)),
            label=int(self.labels[index]),
            mask=tv_tensors.Mask(mask if shows else torch.zeros_like(mask)),
            index=index,
            group=None if self._group_ids is None else self._group_ids[index],
            path=self.path(index),
        )


@DATASETS.register("background_variants", masks="some", groups=True)
def background_variants(
    source: Mapping[str, Any],
    *,
    train: Variant | None = None,
    variants: Sequence[Variant] = VARIANTS,
    size: int = 256,
    fill: Fill = "tile",
    seed: int = 0,
) -> Splits:
    """Any masked data set's test images in ImageNet-9's variants: object alone, background alone, backgrounds exchanged.

    The splits are the source's, and for each variant one of its name, all of them of the same test images: those with an
    object, a background and others to exchange it with. BG-gap is the accuracy on "mixed_same" minus that on "mixed_rand".

    Args:
        source: `name` and options of a registered dataset with masks and a main test split ("test" or "test_shifted").
        train: the variant that "train" and "val" are in; None = they do not change.
        variants: which of them; see `sightline.regions.backgrounds.vary`.
        size: see `MaskedImages`, as are the other options.
        fill: see `MaskedImages`.
        seed: of whose background an image gets.

    Raises:
        SightlineError: the source has no test split, too few masks, or there is no such variant.
    """
    for variant in (*variants, *([] if train is None else [train])):
        check_variant(variant)
    original = DATASETS.create_source(source)
    splits: dict[str, ImageDataset] = dict(original)
    if train is not None:
        for name in ("train", "val"):
            if name in original:
                splits[name] = BackgroundVariant(MaskedImages(original[name], size=size, fill=fill, seed=seed), train)
    shared = MaskedImages(original[original.main_test], size=size, fill=fill, seed=seed)
    return Splits(splits | {variant: BackgroundVariant(shared, variant) for variant in variants})
