"""The user's own images in class folders, with masks and regions to avoid in parallel folders."""

import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate
from sightline.data.image_listing import scan_images, warn_left_out
from sightline.data.mask_files import mask_meaning
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.formats.box_files import boxed_parts
from sightline.formats.folder_layout import read_layout
from sightline.formats.splitting import own_splits


@DATASETS.register("folder", masks="some", groups=False)
def folder(
    root: str,
    *,
    masks: str | None = None,
    avoid: str | None = None,
    boxes: str | None = None,
    ignore: int | None = None,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """Your own images in class folders, with masks in a parallel folder.

    Either `root/CLASS/.../image.jpg`, which is divided; or `root/SPLIT/CLASS/.../image.jpg` with a split "train" and any
    others. There, a missing "val" is taken from "train", and `test` is not used. Folders may also be called Training, valid,
    validation_set, Testing and the like, and be repeated, as in seg_train/seg_train/CLASS. Images that belong to no class are
    counted and named in a warning.
    The path of an image within the folder of its class decides its split, so images which are added later leave the others
    where they are.

    Args:
        root: the folder of images.
        masks: a folder in which an image's mask has the image's relative path, with any image suffix; an image without
            a mask there has none. The folder may be inside `root`. Zero is background and every other value the object.
        avoid: a folder of regions that must not matter to the answer, such as watermarks, named as masks are. Every value but 0
            is to be avoided. An image without a file there has no such region; a black file says that it shows nothing to
            avoid.
        boxes: a file of boxes, as `sightline boxes` writes it (CSV or COCO), or a folder of Pascal VOC's; None = no boxes.
        ignore: a value of `masks` that means neither, such as 255.
        val: share (float), met on average, or count (int) of every class that goes to "val"; 0 = no such split.
        test: the same for "test".
        seed: of the division.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Raises:
        SightlineError: a folder is missing or empty, folders of splits and classes are mixed, there is one class, two images
            would share a mask, or no mask, region to avoid or box belongs to an image.
    """
    base = locate(root, "root")
    given = {"masks": masks, "avoid": avoid}
    places = {option: locate(folder, option) for option, folder in given.items() if folder is not None}
    layout = read_layout(base, places.values())
    images = [image for some in layout.images.values() for image, _ in some]
    regions = {option: _pair_masks(base, place, images, option) for option, place in places.items()}
    mask_of, avoid_of = (regions.get(option, {}) for option in given)
    parts = {
        split: [Record(image, label, mask_of.get(image), avoid=avoid_of.get(image)) for image, label in images]
        for split, images in layout.images.items()
    }
    parts = boxed_parts(parts, boxes)
    make = partial(
        FileDataset, classes=layout.classes, root=base, meaning=mask_meaning(ignore), skip_corrupt=skip_corrupt
    )
    return own_splits(parts, {"val": val, "test": test}, seed, make, layout.within.__getitem__)


def _pair_masks(root: Path, masks: Path, images: Sequence[Path], option: str) -> dict[Path, Path]:
    """Return the mask of each image that has one: the file of the same path within its folder, except for the suffix.

    Args:
        root: The folder of images.
        masks: The folder of masks.
        images: The images.
        option: The name of the user's option, for messages.
    """
    listing = scan_images(masks)
    files: dict[str, Path] = {}
    for file in listing.images:
        if (other := files.setdefault(_without_suffix(masks, file), file)) != file:
            raise SightlineError(f"{option}: {other} and {file} would be masks of one image; remove one")
    owners: dict[str, Path] = {}
    for image in images:
        name = _without_suffix(root, image)
        if name in files and (other := owners.setdefault(name, image)) != image:
            raise SightlineError(
                f"{option}: {files[name]} would be the mask of both {other} and {image}; rename one image"
            )
    for name, file in files.items():
        if name not in owners:
            listing.leave_out("masks that belong to no image", file)
    warn_left_out(listing.left_out, masks)
    if not owners:
        raise SightlineError(
            f"{option}: nothing in {masks} has the relative path of an image in {root}; expected cat/1.png for cat/1.jpg"
        )
    return {image: files[name] for name, image in owners.items()}


def _without_suffix(folder: Path, file: Path) -> str:
    """Return a name that is the same for an image and its mask, however their letters are composed."""
    return unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())
