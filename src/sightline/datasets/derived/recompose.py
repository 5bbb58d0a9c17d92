"""Recomposition: objects cut out by their masks and put on backgrounds that predict the class, or mislead.

The idea is that of the backgrounds challenge (Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object
Recognition", ICLR 2021) and of Waterbirds (Sagawa et al., "Distributionally Robust Neural Networks", ICLR 2020): what
a classifier owes to the background shows when the background changes and the object does not.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from sightline._core.checks import check_count, check_non_negative
from sightline._core.csv_files import read_csv
from sightline._core.seeding import generator
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate
from sightline.data.image_listing import list_images
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits, divide
from sightline.errors import SightlineError
from sightline.regions.boxes import tight_box


@dataclass(frozen=True)
class Placement:
    """How one composed image is put together.

    Args:
        scene: which background, as an index into the data set of scenes.
        scale: longer side of the object's box, as a share of the image's side.
        across: place of the box between the left (0) and the right edge (1) of the free width.
        down: the same between the upper and the lower edge.
    """

    scene: int
    scale: float
    across: float
    down: float


class Recompose(ImageDataset):
    """A masked data set whose objects stand on other backgrounds; groups are pairs (class, class of the background).

    Which objects of a class stand on a background of the object's class is drawn exactly: `correlation` of them, rounded;
    the others are dealt out evenly over the other classes' backgrounds. Everything drawn depends on (seed, split, index).

    Args:
        objects: images with masks, each with at least one object pixel.
        scenes: backgrounds, labelled by the class that they go with; the same classes. Their centre square is used.
        split: the objects' split; another name, another draw. Two sets of the same objects, split and seed differ in
            the backgrounds alone: scale and place of every object are the same.
        correlation: share in [0, 1] of objects on backgrounds of their own class; "uniform" = 1 / classes.
        size: side of the square image, in pixels.
        scale: least and greatest longer side of the object's box, as a share of `size`; drawn uniformly.
        feather: standard deviation in pixels of the softness of the object's border, inwards; 0 = hard. Outside the
            mask, nothing of the object's image ever shows.
        seed: of the draw.

    Raises:
        SightlineError: an object has no mask, an empty one or several labels, a class has no scene, or a value is out of its
            range.
    """

    def __init__(
        self,
        objects: ImageDataset,
        scenes: ImageDataset,
        *,
        split: str,
        correlation: float | Literal["uniform"] = 1.0,
        size: int = 160,
        scale: tuple[float, float] = (0.5, 0.9),
        feather: float = 1.0,
        seed: int = 0,
    ) -> None:
        if objects.classes != scenes.classes:
            raise SightlineError(f"the scenes are for the classes {scenes.classes}; the objects' are {objects.classes}")
        objects.check_single_label("recomposition")
        if not objects.has_mask.all():
            unmasked = (~objects.has_mask).nonzero()[0].item()
            raise SightlineError(f"recomposition needs a mask for every object; the image at {unmasked} has none")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise SightlineError(f"scale is {tuple(scale)}; expected 0 < least <= greatest <= 1")
        check_count(8, size=size)
        check_non_negative(feather=feather)
        self.objects = objects
        self.scenes = scenes
        self.size = size
        self.feather = feather
        number = len(objects.classes)
        own = 1 / number if correlation == "uniform" else correlation
        scene_classes = assign_scenes(objects.labels, number, own, generator(seed, split, "scenes"))
        self.placements = [
            _place(index, scenes, int(scene_class), scale, seed, split)
            for index, scene_class in enumerate(scene_classes)
        ]
        self._group_ids: list[int] = (objects.labels * number + scene_classes).tolist()
        super().__init__(
            objects.classes,
            objects.labels.tolist(),
            [True] * len(objects),
            groups=[f"{name} on {other} scenes" for name in objects.classes for other in objects.classes],
            group_ids=self._group_ids,
            identity=(objects.fingerprint, scenes.fingerprint, size, feather, [asdict(p) for p in self.placements]),
        )
        self.skipped = objects.skipped
        self._backdrops: dict[int, Tensor] = {}

    def origins(self, index: int) -> list[tuple[ImageDataset, int]]:
        """Return the object and the scene."""
        return [(self.objects, index), (self.scenes, self.placements[index].scene)]

    def load(self, index: int) -> Sample:
        """Compose an image. Its path is the object's."""
        source, inside = self._source(index)
        placement = self.placements[index]
        if placement.scene not in self._backdrops:
            image = self.scenes[placement.scene].image
            self._backdrops[placement.scene] = F.center_crop(F.resize(image, [self.size]), [self.size, self.size])
        image, mask = compose(source.image, inside, self._backdrops[placement.scene], placement, self.feather)
        return Sample(
            image=tv_tensors.Image(image),
            label=source.label,
            mask=tv_tensors.Mask(mask),
            index=index,
            group=self._group_ids[index],
            path=source.path,
        )

    def record(self) -> list[dict[str, Any]]:
        """How every image was put together: files, classes, group, scale, and the object's box (xyxy, pixels)."""
        return [self._record(index) for index in range(len(self))]

    def _record(self, index: int) -> dict[str, Any]:
        source, inside = self._source(index)
        placement = self.placements[index]
        _, box = _fit(inside, placement, self.size)
        return {
            "index": index,
            "object": source.path,
            "background": self.scenes[placement.scene].path,
            "class": self.classes[int(source.label)],
            "background_class": self.classes[self.scenes.labels[placement.scene]],
            "group": self.groups[self._group_ids[index]],
            "scale": placement.scale,
            "box": box,
        }

    def _source(self, index: int) -> tuple[Sample, Tensor]:
        """Return an object's image, and (H, W) bool where the object is in it."""
        sample = self.objects[index]
        assert sample.mask is not None  # has_mask was checked when this was made
        inside = torch.eq(sample.mask, 1)
        if not inside.any():
            raise SightlineError(
                f"the mask of {sample.path} holds no object, so nothing can be cut out; correct the mask, "
                "or leave the image out"
            )
        return sample, inside


def assign_scenes(labels: Tensor, classes: int, own: float, draw: torch.Generator) -> Tensor:
    """Assign the class of the background of each object.

    Args:
        labels: (N,) int64, the objects' classes.
        classes: how many classes there are.
        own: share of every class's objects, rounded to a number, that get their own class's background; the others
            are dealt out evenly over the other classes.
        draw: the generator.

    Returns:
        (N,) int64.
    """
    if not (isinstance(own, int | float) and 0 <= own <= 1):
        raise SightlineError(f"correlation is {own!r}; expected a share in [0, 1] or 'uniform'")
    assigned = torch.empty_like(labels)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=draw)]
        count = round(own * len(members))
        others = torch.tensor([c for c in range(classes) if c != label])[torch.randperm(classes - 1, generator=draw)]
        assigned[members[:count]] = label
        assigned[members[count:]] = others[torch.arange(len(members) - count) % (classes - 1)]
    return assigned


def compose(
    image: Tensor, inside: Tensor, scene: Tensor, placement: Placement, feather: float
) -> tuple[Tensor, Tensor]:
    """Cut an object out, scale it, and put it on a background.

    Colours are weighted by the mask before they are scaled, so what surrounded the object does not bleed in.

    Args:
        image: (3, H, W) uint8, the object's image.
        inside: (H, W) bool, where the object is.
        scene: (3, S, S) uint8, the background.
        placement: scale and place.
        feather: softness of the border, see `Recompose`.

    Returns:
        The image (3, S, S) uint8 and the object's mask (S, S) uint8 in {0, 1}. Where the mask is 0, the image is
        the background exactly.
    """
    (top, left, bottom, right), (x1, y1, x2, y2) = _fit(inside, placement, scene.shape[-1])
    cut = inside[top:bottom, left:right].float()
    layers = torch.cat([image[:, top:bottom, left:right].float() * cut, cut[None]])  # (4, h, w)
    layers = F.resize(layers, [y2 - y1, x2 - x1])
    cover = layers[3]
    threshold = min(0.5, cover.max().item())  # what is thinner than a pixel keeps its strongest pixel
    kept = cover >= threshold
    colour = layers[:3] / cover.clamp_min(threshold)
    alpha = kept * _soften(kept.float(), feather)

    composed, mask = scene.clone(), torch.zeros_like(scene[0])
    patch = composed[:, y1:y2, x1:x2]
    patch.copy_((alpha * colour + (1 - alpha) * patch).round().clamp(0, 255))
    mask[y1:y2, x1:x2] = kept
    return composed, mask


def _place(
    index: int, scenes: ImageDataset, scene_class: int, scale: Sequence[float], seed: int, split: str
) -> Placement:
    choices = (scenes.labels == scene_class).nonzero().flatten()
    if not len(choices):
        raise SightlineError(f"the class {scenes.classes[scene_class]!r} has no scene; expected at least one")
    choice, size, across, down = torch.rand(4, generator=generator(seed, split, index, "placement")).tolist()
    return Placement(
        scene=int(choices[int(choice * len(choices))]),
        scale=scale[0] + size * (scale[1] - scale[0]),
        across=across,
        down=down,
    )


def _fit(
    inside: Tensor, placement: Placement, size: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Where the object is in its own image (top, left, bottom, right) and in the composed image (xyxy), ends exclusive."""
    left, top, right, bottom = tight_box(inside)
    longer = placement.scale * size / max(right - left, bottom - top)
    width, height = max(1, round((right - left) * longer)), max(1, round((bottom - top) * longer))
    x, y = round(placement.across * (size - width)), round(placement.down * (size - height))
    return (top, left, bottom, right), (x, y, x + width, y + height)


def _soften(kept: Tensor, feather: float) -> Tensor:
    """From 1 inside to 0 at the border, over about two standard deviations of a Gaussian; all 1 without a feather."""
    if feather == 0:
        return torch.ones_like(kept)
    reach = math.ceil(3 * feather)
    padded = F.pad(kept[None], [reach] * 4)  # beyond the box there is no object
    blurred = F.gaussian_blur(padded, [2 * reach + 1] * 2, [feather] * 2)[0, reach:-reach, reach:-reach]
    return (2 * blurred - 1).clamp(0, 1)


@DATASETS.register("recomposed", masks="all", groups=True)
def recomposed(
    source: Mapping[str, Any],
    backgrounds: str,
    *,
    scenes: Mapping[str, Sequence[str | int]] | None = None,
    correlation: float | Literal["uniform"] = 1.0,
    val_scenes: int = 1,
    size: int = 160,
    scale: tuple[float, float] = (0.5, 0.9),
    feather: float = 1.0,
    seed: int = 0,
) -> Splits:
    """Any masked data set as a shortcut benchmark: backgrounds predict the class in training and mislead in test.

    | split | images | backgrounds |
    | --- | --- | --- |
    | train | the source's train | own class's, `correlation` of them |
    | val | the source's val | held out, own class's as in training |
    | val_shifted | the source's val | held out, other classes' |
    | test_shifted | the source's test | training backgrounds of other classes |
    | test_iid | the source's test | training backgrounds of the own class |

    Args:
        source: `name` and options of a registered data set with masks and the splits train, test and, with
            `val_scenes`, val.
        backgrounds: a folder of images, or a CSV file with the columns path and label.
        scenes: for every class its backgrounds: paths or folder names below `backgrounds`, or labels of the CSV file;
            None = a folder or label with the class's name.
        correlation: share in [0, 1] of training objects on backgrounds of their own class; "uniform" = 1 / classes.
        val_scenes: backgrounds of every class that are held out for val and val_shifted; 0 = training has all of them,
            and there is no validation.
        size: see `Recompose`, as are the other options.
        scale: see `Recompose`.
        feather: see `Recompose`.
        seed: of held-out backgrounds and of every composition.

    Raises:
        SightlineError: the source lacks a split or masks, or a class has no background or shares one with another.
    """
    source_images = DATASETS.create_source(source)
    base = locate(backgrounds, "backgrounds")
    places = _scene_records(base, scenes, source_images.classes)
    divided = {
        name: FileDataset([places[i] for i in chosen], source_images.classes, base)
        for name, chosen in divide([place.label for place in places], {"val": val_scenes}, seed).items()
    }
    return recompose_splits(
        source_images, divided, correlation=correlation, size=size, scale=scale, feather=feather, seed=seed
    )


def recompose_splits(
    objects: Mapping[str, ImageDataset],
    scenes: Mapping[str, ImageDataset],
    *,
    correlation: float | Literal["uniform"],
    **options: Any,
) -> Splits:
    """Make the five splits of the dataset "recomposed" (three, if `scenes` has no "val"), from objects and scenes.

    Args:
        objects: masked data sets "train", "test" and, where `scenes` has it, "val".
        scenes: backgrounds "train" and optionally "val".
        correlation: of "train" and "val".
        options: size, scale, feather and seed of `Recompose`.
    """
    plan = {"train": ("train", "train", correlation)}
    if "val" in scenes:
        plan |= {"val": ("val", "val", correlation), "val_shifted": ("val", "val", 0.0)}
    plan |= {"test_shifted": ("test", "train", 0.0), "test_iid": ("test", "train", 1.0)}
    return Splits(
        {
            name: Recompose(objects[part], scenes[places], split=part, correlation=share, **options)
            for name, (part, places, share) in plan.items()
        }
    )


def _scene_records(
    base: Path, scenes: Mapping[str, Sequence[str | int]] | None, classes: Sequence[str]
) -> list[Record]:
    """Every background file with the class that it goes with."""
    known: dict[str, list[Path]] = defaultdict(list)  # by path, folder or label
    if base.is_dir():
        for file in list_images(base):
            within = file.relative_to(base)
            for place in (within, *within.parents[:-1]):
                known[place.as_posix()].append(file)
    else:
        for _, row in read_csv(base, required=("path", "label")):
            known[row["label"]].append(base.parent / row["path"])

    if scenes is None:
        scenes = {name: [name] for name in classes}
    if set(scenes) != set(classes):
        raise SightlineError(f"scenes are given for {sorted(scenes)}; expected the classes {sorted(classes)}")
    owners: dict[Path, int] = {}
    for label, class_name in enumerate(classes):
        for name in scenes[class_name]:
            if str(name) not in known:
                raise SightlineError(
                    f"scenes of {class_name!r}: {base} has no file, folder or label {str(name)!r}; name one that exists"
                )
            for file in known[str(name)]:
                owner = owners.setdefault(file, label)
                if owner != label:
                    raise SightlineError(
                        f"{file} is a scene of {classes[owner]!r} and of {class_name!r}; give each scene to one class"
                    )
    return [Record(file, label) for file, label in owners.items()]
