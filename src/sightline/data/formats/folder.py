"""The user's own images in class folders, with masks in a parallel folder."""

from functools import partial
from pathlib import Path

from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import IMAGE_SUFFIXES, list_images, locate
from sightline.data.formats.box_files import boxed_parts
from sightline.data.formats.splitting import own_splits
from sightline.data.mask_files import mask_meaning
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError


@DATASETS.register("folder", masks="some", groups=False)
def folder(
    root: str,
    *,
    masks: str | None = None,
    boxes: str | None = None,
    ignore: int | None = None,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """Your own images in class folders, with masks in a parallel folder.

    Either `root/CLASS/.../image.jpg`, which is divided; or `root/SPLIT/CLASS/.../image.jpg` with a split "train" and any
    others. There, a missing "val" is taken from "train", and `test` is not used. The path of an image within the folder of its
    class decides its split, so that images which are added later leave the others where they are.

    Args:
        root: the folder of images.
        masks: a folder in which an image's mask has the image's relative path, with any image suffix; an image without
            a mask there has none. Zero is background and every other value the object.
        boxes: a file of boxes, as `sightline boxes` writes it (CSV or COCO), or a folder of Pascal VOC's; None = no boxes.
        ignore: a mask value that means neither, such as 255.
        val: share (float), met on average, or count (int) of every class that goes to "val"; 0 = no such split.
        test: the same for "test".
        seed: of the division.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Raises:
        SightlineError: a folder is missing or empty, there is one class, or no mask or no box belongs to an image.
    """
    base = locate(root, "root")
    mask_files = {}
    if masks is not None:
        mask_base = locate(masks, "masks")
        mask_files = {p.relative_to(mask_base).with_suffix(""): p for p in list_images(mask_base)}

    split_folders = {p.name: p for p in _folders(base)} if (base / "train").is_dir() else {"": base}
    classes = sorted({p.name for split in split_folders.values() for p in _folders(split)})
    parts = {
        split: [
            Record(image, label, mask_files.get(image.relative_to(base).with_suffix("")))
            for label, name in enumerate(classes)
            for image in list_images(place / name)
        ]
        for split, place in split_folders.items()
    }
    if not any(parts.values()):
        raise SightlineError(f"root: {base} holds no images in class folders; known suffixes: {sorted(IMAGE_SUFFIXES)}")
    if masks is not None and not any(record.mask for part in parts.values() for record in part):
        raise SightlineError(f"masks: nothing in {masks} has the relative path of an image in {base}")
    parts = boxed_parts(parts, boxes)
    make = partial(FileDataset, classes=classes, root=base, meaning=mask_meaning(ignore), skip_corrupt=skip_corrupt)
    outer = 1 if "" in split_folders else 2

    def within_class(path: Path) -> str:
        return "/".join(path.relative_to(base).parts[outer:])

    return own_splits(parts, {"val": val, "test": test}, seed, make, within_class)


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
