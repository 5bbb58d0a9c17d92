"""PASCAL-Part (Chen et al., "Detect What You Can", CVPR 2014): its animals, whose every part is drawn."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline._core.reading import RESTORE, reading
from sightline.data.dataset import Sample
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import UnreadableFileError, locate
from sightline.data.official import OFFICIAL
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.formats.splitting import official_splits

ANIMALS = ("bird", "cat", "cow", "dog", "horse", "sheep")
ANNOTATIONS, IMAGES, LISTS = Path("Annotations_Part"), Path("JPEGImages"), Path("ImageSets", "Main")
BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError, zlib.error)


@dataclass(frozen=True)
class AnimalMask:
    """The animals of an image as MATLAB saved them; identified by the path below the data set's folder.

    Args:
        root: the folder of the annotations.
        file: the image's, below it.
        animal: the class whose objects count.
    """

    root: Path = field(repr=False)
    file: str
    animal: str

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) uint8 with 0 = background and 1 = an animal of the class."""
        whole = torch.zeros(height, width, dtype=torch.uint8)
        for animal in self._objects():
            whole |= self._mask(animal.mask, height, width)
        return whole

    def parts(self, height: int, width: int) -> dict[str, Tensor]:
        """Official part name -> (height, width) uint8 with 1 = that part of any animal of the class."""
        found: dict[str, Tensor] = {}
        for animal in self._objects():
            for part in np.atleast_1d(animal.parts):
                mask = self._mask(part.mask, height, width)
                found[part.part_name] = found.get(part.part_name, torch.zeros_like(mask)) | mask
        return found

    def _objects(self) -> Iterator[Any]:
        """Yield the annotated animals of the class.

        Raises:
            UnreadableFileError: the file is not as MATLAB or the data set has it.
        """
        path = self.root / self.file
        try:
            found = [
                each for each in _annotated(path, path.stat().st_mtime_ns) if getattr(each, "class") == self.animal
            ]
        except BROKEN as error:
            raise UnreadableFileError(f"cannot read the parts in {path}: {error}") from error
        yield from found

    def _mask(self, values: np.ndarray, height: int, width: int) -> Tensor:
        if values.shape != (height, width):
            raise SightlineError(f"a mask in {self.root / self.file} is {values.shape}; its image is {(height, width)}")
        return torch.from_numpy((values != 0).astype(np.uint8))


@lru_cache(maxsize=1)  # an image's mask and its parts are asked for one after the other
def _annotated(path: Path, written: int) -> np.ndarray:
    """Return the annotated objects in a file of annotations."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True, struct_as_record=False)["anno"].objects)
    except MatReadError as error:
        raise ValueError(str(error)) from error


class PascalPart(FileDataset):
    """Images of animals, with a mask of the animals and one of each of their parts."""

    def load(self, index: int) -> Sample:
        """Read an image, its mask and its parts."""
        sample = super().load(index)
        masks = list(self._drawn(index, sample.image.shape[-2:]).values())
        height, width = sample.image.shape[-2:]
        drawn = torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.uint8)
        return replace(sample, parts=tv_tensors.Mask(drawn))

    def parts(self, index: int) -> dict[str, tv_tensors.Mask]:
        """Return the parts of the animals in the image at an index: official name, such as "torso" or "lfleg" -> (H, W) uint8.

        A part that is not visible is not listed. Parts of several animals are one mask.
        """
        size = self[index].image.shape[-2:]
        return {name: tv_tensors.Mask(mask) for name, mask in self._drawn(index, size).items()}

    def _drawn(self, index: int, size: torch.Size) -> dict[str, Tensor]:
        mask = self.records[index].mask
        assert isinstance(mask, AnimalMask)  # all of this data set are
        return mask.parts(size[0], size[1])


@DATASETS.register("pascal_part", masks="all", groups=False)
def pascal_part(root: str, *, val: float = 0.1, seed: int = 0, skip_corrupt: bool = False) -> Splits:
    """PASCAL-Part's animals: images with a bird, cat, cow, dog, horse or sheep, whose every part is drawn.

    Images of two of these classes are left out, as the lists of PASCAL VOC tell them. Samples have the masks of the parts,
    which the metric `part_interpretability` looks at, and `PascalPart.parts` gives them by name.

    Args:
        root: the folder that holds `Annotations_Part/`, and PASCAL VOC 2010's `JPEGImages/` and `ImageSets/Main/`, in itself or
            in `VOC2010/` or `VOCdevkit/VOC2010/`.
        val: share (float) or count (int) of every class's official training images that go to "val"; 0 = no such split.
        seed: of the choice of validation images.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test", the last one the official validation set.

    Raises:
        SightlineError: files are missing, or a class has too few images.
    """
    base = locate(root, "root")
    images = next((p for p in (base, base / "VOC2010", base / "VOCdevkit/VOC2010") if (p / LISTS).is_dir()), None)
    if images is None or not (base / ANNOTATIONS).is_dir():
        missing = base / ANNOTATIONS if images else base / "VOCdevkit/VOC2010" / LISTS
        raise SightlineError(
            f"root: there is no {missing}; expected PASCAL-Part, available from {OFFICIAL['pascal_part'].source}"
        )
    found = {part: _records(base, images, part) for part in ("train", "val")}
    make = partial(PascalPart, classes=ANIMALS, root=base, skip_corrupt=skip_corrupt)
    return official_splits(found["train"], found["val"], make, val, seed)


def _records(base: Path, images: Path, part: str) -> list[Record]:
    """Return the images of an official list that show one of the animals."""
    shown: dict[str, list[int]] = {}
    for label, animal in enumerate(ANIMALS):
        path = images / LISTS / f"{animal}_{part}.txt"
        with reading(path, RESTORE):
            for line in path.read_text(encoding="utf-8").splitlines():
                name, shows = line.split()
                if int(shows) >= 0:  # 0 = only animals that are hard to see
                    shown.setdefault(name, []).append(label)
    records = []
    for name, labels in sorted(shown.items()):
        file = ANNOTATIONS / f"{name}.mat"
        if len(labels) == 1 and (base / file).is_file():
            mask = AnimalMask(base, file.as_posix(), ANIMALS[labels[0]])
            records.append(Record(images / IMAGES / f"{name}.jpg", labels[0], mask))
    return records
