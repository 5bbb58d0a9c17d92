"""RIVAL10 in its official layout.

Moayeri, Pope, Balaji, Feizi, "A Comprehensive Study of Image Classification Model Sensitivity to Foregrounds, Backgrounds,
and Visual Attributes", CVPR 2022: 26,000 ImageNet images in ten classes, with masks of objects and of their attributes.
"""

import base64
import io
import pickle
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sightline._core.checks import check_choice
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import UnreadableFileError, locate
from sightline.data.image_listing import list_images
from sightline.data.mask_files import bright
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.data.transforms import resize_mask
from sightline.errors import SightlineError
from sightline.formats.box_files import boxed_parts
from sightline.formats.splitting import official_splits

# The classes in the official order, each with the two ImageNet classes that it is made of.
CLASSES = {
    "truck": ("n03796401", "n04467665"),
    "car": ("n02814533", "n03100240"),
    "plane": ("n02690373", "n04552348"),
    "ship": ("n03673027", "n03095699"),
    "cat": ("n02123394", "n02124075"),
    "dog": ("n02099712", "n02099601"),
    "equine": ("n02389026", "n02391049"),
    "deer": ("n02423022", "n02422699"),
    "frog": ("n01644900", "n01644373"),
    "bird": ("n01531178", "n01532829"),
}
OBJECT = "entire-object"


@DATASETS.register("rival10", masks="all", groups=False)
def rival10(
    root: str,
    *,
    masks: Literal["object", "attributes"] = "object",
    val: float = 0.1,
    per_class: int | None = None,
    boxes: str | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """RIVAL10: ImageNet images of ten classes, from truck to bird, with masks of the whole object.

    Only the ordinary images are read, not those to which attributes were added or from which they were removed.

    Args:
        root: the folder that holds `train/ordinary/` and `test/ordinary/`, or that in which `RIVAL10/` is.
        masks: of the whole "object" (the noise study's), or all "attributes" merged, such as wheels and wings. The first are
            in pickle files, of which only names and texts is loaded; where such a file does not know the object, the
            mask is "ignore" everywhere.
        val: share (float) or count (int) of every class's training images that go to "val"; 0 = no such split.
        per_class: keep this many training images of every class; a larger number contains the smaller's.
        boxes: a file of boxes, as for the data set "folder"; None = no boxes.
        seed: of the choice of validation and training images.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test", the last one official.

    Raises:
        SightlineError: files are missing, an image is of another ImageNet class, or fewer than `per_class` remain.
    """
    check_choice(("object", "attributes"), masks=masks)
    base = locate(root, "root")
    base = base if (base / "train").is_dir() else base / "RIVAL10"
    found = {part: _listed_images(base, part) for part in ("train", "test")}
    classes = [name for name in CLASSES if any(name in part.values() for part in found.values())]
    parts = {
        part: [
            Record(file, classes.index(name), StoredMask(file, masks == "object", file.name))
            for file, name in listed.items()
        ]
        for part, listed in found.items()
    }
    parts = boxed_parts(parts, boxes)
    make = partial(FileDataset, classes=classes, root=base, skip_corrupt=skip_corrupt)
    return official_splits(parts["train"], parts["test"], make, val, seed, per_class)


@dataclass(frozen=True)
class StoredMask:
    """A mask of a RIVAL10 image; identified by the image's name and the part that it shows.

    Args:
        image: its file.
        whole: of the whole object, in `..._attr_dict.pkl`; else of the attributes, in `..._merged_mask.JPEG`.
    """

    file: Path = field(repr=False)
    whole: bool
    name: str = ""

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) uint8 with 0 = background, 1 = object, 255 = ignore (nothing is known).

        Raises:
            UnreadableFileError: the mask's file is missing or cannot be read.
        """
        stem = str(self.file.with_suffix(""))
        file = Path(stem + ("_attr_dict.pkl" if self.whole else "_merged_mask.JPEG"))
        try:
            if not self.whole:
                return _decode(file.read_bytes(), height, width)
            png = _known(file).get(OBJECT)
            if png is None:
                return torch.full((height, width), 255, dtype=torch.uint8)
            return _decode(base64.b64decode(png), height, width)
        except (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, pickle.UnpicklingError) as error:
            raise UnreadableFileError(f"cannot read the mask {file}: {error}") from error


class _Plain(pickle.Unpickler):
    """Loads names, texts and numbers; anything that would run code is an error."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}; expected attributes' names and base64 texts alone")


def _known(file: Path) -> dict[str, Any]:
    with file.open("rb") as handle:
        known = _Plain(handle).load()
    if not isinstance(known, dict):
        raise pickle.UnpicklingError(f"it holds a {type(known).__name__}; expected a dict from attribute to mask")
    return known


def _decode(encoded: bytes, height: int, width: int) -> Tensor:
    """Return the bright pixels, at the size of the image."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as png:
        drawn = png if png.mode in ("L", "RGB", "RGBA") else png.convert("RGBA")
        return resize_mask(bright(F.pil_to_tensor(drawn))[0], [height, width])


def _listed_images(base: Path, part: str) -> dict[Path, str]:
    """Return the images of a part, with their classes."""
    folder = base / part / "ordinary"
    if not folder.is_dir():
        raise SightlineError(f"root: there is no {folder}; expected RIVAL10's official layout")
    names = {wnid: name for name, wnids in CLASSES.items() for wnid in wnids}
    listed = {}
    for file in list_images(folder):
        if file.stem.endswith("_merged_mask"):
            continue
        wnid = file.name.partition("_")[0]
        if wnid not in names:
            raise SightlineError(f"root: {file} begins with {wnid!r}, which is not an ImageNet class of RIVAL10's")
        listed[file] = names[wnid]
    if not listed:
        raise SightlineError(f"root: {folder} holds no images; expected the official JPEG files of RIVAL10")
    return listed
