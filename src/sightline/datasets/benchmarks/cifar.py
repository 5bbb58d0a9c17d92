"""CIFAR-10, CIFAR-100 and STL-10: torchvision's files, and CIFAR as images in zip files."""

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline._core.reading import reading
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.files import locate
from sightline.data.image_files import decode_image
from sightline.data.image_listing import IMAGE_SUFFIXES
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits, divide
from sightline.errors import SightlineError


@DATASETS.register("cifar10", masks="none", groups=False)
def cifar10(
    root: str, *, val: float = 0.1, per_class: int | None = None, seed: int = 0, download: bool = False
) -> Splits:
    """CIFAR-10: 32 x 32 colour images of ten classes (Krizhevsky, "Learning multiple layers of features", 2009).

    Args:
        root: the folder that holds torchvision's `cifar-10-batches-py/`, or the images as `cifar10-train.zip` and
            `cifar10-test.zip` with files `train/CLASS/0000.jpg`, which are read without unpacking.
        val: share (float) or count (int) of every class's training images that go to "val"; 0 = no such split.
        per_class: keep this many training images of every class; a larger number contains the smaller's.
        seed: of the choice of validation and training images.
        download: fetch the 170 MB into `root` by torchvision unless they are there.

    Returns:
        The splits "train", "val" and "test", the last one official.

    Raises:
        SightlineError: the files are missing or cannot be downloaded, or fewer than `per_class` images remain.
    """
    from torchvision.datasets import CIFAR10

    return _cifar("cifar10", CIFAR10, root, val, per_class, seed, download)


@DATASETS.register("cifar100", masks="none", groups=False)
def cifar100(
    root: str, *, val: float = 0.1, per_class: int | None = None, seed: int = 0, download: bool = False
) -> Splits:
    """CIFAR-100: as CIFAR-10, with a hundred classes of 500 training images.

    Args:
        root: the folder that holds torchvision's `cifar-100-python/`, or `cifar100-train.zip` and `cifar100-test.zip`.
        val: see `cifar10`.
        per_class: see `cifar10`.
        seed: see `cifar10`.
        download: see `cifar10`.
    """
    from torchvision.datasets import CIFAR100

    return _cifar("cifar100", CIFAR100, root, val, per_class, seed, download)


@DATASETS.register("stl10", masks="none", groups=False)
def stl10(
    root: str, *, val: float = 0.1, per_class: int | None = None, seed: int = 0, download: bool = False
) -> Splits:
    """STL-10: 96 x 96 colour images of ten classes, 5,000 to train on and 8,000 to test (Coates, Ng, Lee, 2011).

    Its unlabelled images are not used.

    Args:
        root: the folder that holds torchvision's `stl10_binary/`.
        val: see `cifar10`.
        per_class: see `cifar10`.
        seed: see `cifar10`.
        download: fetch the 2.6 GB into `root` by torchvision unless they are there.
    """
    from torchvision.datasets import STL10

    def read(split: str) -> Pictures:
        found = _fetch("stl10", root, download, partial(STL10, split=split))
        labels = [int(label) for label in found.labels]
        return Pictures(torch.from_numpy(found.data), list(found.classes), labels, f"stl10/{split}")

    return _splits(read("train"), read("test"), val, per_class, seed)


class Pictures(ImageDataset):
    """Small images in memory, as pixels or as the bytes of their files.

    Args:
        images: (N, 3, H, W) uint8, or N encoded images.
        classes: the classes' names.
        labels: each image's class.
        name: of the set; it enters the fingerprint.
        names: each image's; default: its number. They enter the fingerprint.
    """

    def __init__(
        self,
        images: Tensor | Sequence[bytes],
        classes: Sequence[str],
        labels: Sequence[int],
        name: str,
        names: Sequence[str] | None = None,
    ) -> None:
        self.names = [str(i) for i in range(len(labels))] if names is None else list(names)
        super().__init__(classes, labels, [False] * len(labels), identity=(name, self.names))
        self.images = images
        self.name = name

    def path(self, index: int) -> str:
        """Return the names of the set and the image."""
        return f"{self.name}/{self.names[index]}"

    def load(self, index: int) -> Sample:
        """Load the image at an index.

        Raises:
            UnreadableFileError: the bytes are not an image.
        """
        stored = self.images[index]
        image = stored if isinstance(stored, Tensor) else decode_image(io.BytesIO(stored), self.path(index))
        return Sample(
            tv_tensors.Image(image), int(self.labels[index]), mask=None, index=index, group=None, path=self.path(index)
        )


def _cifar(
    name: str,
    kind: Callable[..., Any],
    root: str,
    val: float,
    per_class: int | None,
    seed: int,
    download: bool,
) -> Splits:
    zips = [Path(root).expanduser() / f"{name}-{split}.zip" for split in ("train", "test")]
    if not download:
        zips = [locate(root, "root") / file.name for file in zips]
    if all(file.is_file() for file in zips):
        return _from_zips(zips, val, per_class, seed)

    def read(split: str) -> Pictures:
        found = _fetch(name, root, download, partial(kind, train=split == "train"))
        pixels = torch.from_numpy(found.data).movedim(-1, 1).contiguous()
        return Pictures(pixels, list(found.classes), list(found.targets), f"{name}/{split}")

    return _splits(read("train"), read("test"), val, per_class, seed)


def _fetch(name: str, root: str, download: bool, make: Callable[..., Any]) -> Any:
    """torchvision's data set, fetched if so asked."""
    place = root if download else str(locate(root, "root"))
    try:
        return make(place, download=download)
    except (OSError, RuntimeError) as error:
        raise SightlineError(
            f"root: torchvision finds no {name} in {place} ({error}); download=True fetches it"
        ) from error


def _from_zips(files: Sequence[Path], val: float, per_class: int | None, seed: int) -> Splits:
    """Return the images SPLIT/CLASS/NAME of two zip files in the order of their names; only those that are kept are read."""
    listed = [_listed(file) for file in files]
    classes = sorted({kind for names in listed for _, kind, _ in names})
    labels = [[classes.index(kind) for _, kind, _ in names] for names in listed]

    def read(which: int, places: Sequence[int]) -> Pictures:
        names = ["/".join(listed[which][i]) for i in places]
        with _opened(files[which]) as archive:
            encoded = [archive.read(name) for name in names]
        return Pictures(encoded, classes, [labels[which][i] for i in places], files[which].name, names)

    divided = divide(labels[0], {"val": val}, seed, per_class)
    train = {name: read(0, places) for name, places in divided.items()}
    return Splits({**train, "test": read(1, range(len(labels[1])))})


def _listed(file: Path) -> list[tuple[str, str, str]]:
    """Split, class and name of each image in a zip file."""
    with _opened(file) as archive:
        found = [name for name in sorted(archive.namelist()) if name.lower().endswith(tuple(IMAGE_SUFFIXES))]
    parts = [tuple(name.split("/")) for name in found]
    if not parts or any(len(each) != 3 for each in parts):
        strange = [name for name, each in zip(found, parts) if len(each) != 3]
        raise SightlineError(f"root: {file} holds {strange[:1] or 'no images'}; expected SPLIT/CLASS/0000.jpg")
    return parts  # type: ignore[return-value]


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    with reading(file, "fetch the archive again"), zipfile.ZipFile(file) as archive:
        yield archive


def _splits(train: Pictures, test: Pictures, val: float, per_class: int | None, seed: int) -> Splits:
    pixels = train.images
    assert isinstance(pixels, Tensor)

    def part(places: Sequence[int]) -> Pictures:
        names = [train.names[i] for i in places]
        return Pictures(pixels[list(places)], train.classes, train.labels[list(places)].tolist(), train.name, names)

    divided = divide(train.labels.tolist(), {"val": val}, seed, per_class)
    return Splits({**{name: part(places) for name, places in divided.items()}, "test": test})
