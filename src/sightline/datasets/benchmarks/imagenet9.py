"""ImageNet-9, the test sets of the backgrounds challenge, in its official layout.

Xiao, Engstrom, Ilyas, Madry, "Noise or Signal: The Role of Image Backgrounds in Object Recognition", ICLR 2021.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import UnreadableFileError, locate
from sightline.data.image_listing import list_images
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.formats.splitting import divide_records
from sightline.regions.backgrounds import VARIANTS


@DATASETS.register("imagenet9", masks="some", groups=False)
def imagenet9(
    root: str,
    *,
    train: str | None = None,
    val: float = 0.1,
    per_class: int | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """ImageNet-9: images of nine classes, from dog to fish, and the same objects with their backgrounds changed.

    BG-gap is the accuracy on "mixed_same" minus the accuracy on "mixed_rand". The masks of the test images are read where
    `fg_mask/` is there; those of the training images were never released. `background_variants` makes the same
    variants of any other data set with masks.

    Args:
        root: the folder that holds `original/val/`, `mixed_same/val/` and the other variants that you have, each
            with one folder per class, such as `00_dog`; or that in which `bg_challenge/` is.
        train: a folder that holds `train/` with the same class folders, such as that of the released training set "original"
            or "mixed_rand"; None = there is neither "train" nor "val".
        val: share (float) or count (int) of every class's training images that go to "val"; 0 = no such split.
        per_class: keep this many training images of every class; a larger number contains the smaller's.
        seed: of the choice of validation and training images.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        "test", the original images; "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b"
        and "only_bg_t", if the folder has them; "train" and "val", if asked for.

    Raises:
        SightlineError: files are missing, the parts have other class folders, or fewer than `per_class` images remain.
    """
    base = locate(root, "root")
    base = base / "bg_challenge" if (base / "bg_challenge").is_dir() else base
    if not (base / "original" / "val").is_dir():
        raise SightlineError(f"root: there is no {base / 'original' / 'val'}; expected ImageNet-9's official layout")
    folders = sorted(place.name for place in (base / "original" / "val").iterdir() if place.is_dir())
    classes = [folder.partition("_")[2] or folder for folder in folders]
    parts = {
        "test" if variant == "original" else variant: _records(base, Path(variant, "val"), folders)
        for variant in VARIANTS
        if (base / variant / "val").is_dir()
    }
    made = {name: FileDataset(part, classes, base, skip_corrupt=skip_corrupt) for name, part in parts.items()}
    if train is not None:
        place = locate(train, "train")
        found = _records(place, Path("train"), folders)
        drawn = divide_records(found, {"val": val}, seed, per_class)
        made = {name: FileDataset(p, classes, place, skip_corrupt=skip_corrupt) for name, p in drawn.items()} | made
    return Splits(made)


@dataclass(frozen=True)
class ArrayMask:
    """A mask that NumPy saved; identified by its path below the data set's folder.

    Args:
        root: the data set's folder.
        file: the mask's, below it.
    """

    root: Path = field(repr=False)
    file: str

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) uint8 with 0 = background and 1 = object.

        Raises:
            UnreadableFileError: the file is not an array.
            SightlineError: it is of another size.
        """
        try:
            values = np.load(self.root / self.file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UnreadableFileError(f"cannot read the mask {self.root / self.file}: {error}") from error
        if values.shape != (height, width):
            raise SightlineError(f"the mask {self.root / self.file} is {values.shape}; its image is {(height, width)}")
        return torch.from_numpy((values != 0).astype(np.uint8))


def _records(base: Path, part: Path, folders: list[str]) -> list[Record]:
    """Return the images of a part in class folders, with masks where the objects are whole and the masks are known."""
    if not (base / part).is_dir():
        raise SightlineError(f"there is no {base / part}; expected ImageNet-9's official layout")
    present = sorted(place.name for place in (base / part).iterdir() if place.is_dir())
    if present != folders:
        raise SightlineError(f"{base / part} has the class folders {present}; expected {folders}, as the test set")
    whole = part.parent.name in ("original", "only_fg")
    records = []
    for label, folder in enumerate(folders):
        for image in list_images(base / part / folder):
            mask = Path("fg_mask", part.name, folder, image.stem + ".npy")
            known = whole and (base / mask).is_file()
            records.append(Record(image, label, ArrayMask(base, mask.as_posix()) if known else None))
    return records
