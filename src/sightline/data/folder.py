"""Your own images: in class folders, with masks in a parallel folder, or listed in a CSV file."""

import csv as csv_module
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from sightline.data.dataset import FileDataset, Record, Splits, divide
from sightline.data.files import IMAGE_SUFFIXES, list_images, locate, mask_meaning
from sightline.data.registry import DATASETS
from sightline.errors import SightlineError, unknown_name


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

    Either `root/CLASS/.../image.jpg`, which is divided at random, every class alike; or `root/SPLIT/CLASS/.../image.jpg`
    with a split "train" and any others. There, a missing "val" is drawn from "train", and `test` is not used.

    Args:
        root: the folder of images.
        masks: a folder in which an image's mask has the image's relative path, with any image suffix; an image without
            a mask there has none. Zero is background and every other value the object.
        boxes: a file of boxes, as `sightline boxes` writes it (CSV or COCO), or a folder of Pascal VOC's; None = no boxes.
        ignore: a mask value that means neither, such as 255.
        val: share (float) or count (int) of every class that goes to "val"; 0 = no such split.
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
    return _splits(parts, {"val": val, "test": test}, seed, make)


@DATASETS.register("csv", masks="some", groups=True)
def csv(
    path: str,
    *,
    root: str | None = None,
    boxes: str | None = None,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """Your own images listed in a CSV file with the columns path, label[, mask][, split][, group][, x1, y1, x2, y2].

    Without a column `split` the rows are divided at random, every class alike. With one, a missing "val" is drawn from
    "train", and `test` is not used. An empty `mask` means that the image has none. Other columns are not read.

    The columns x1, y1, x2, y2 hold a box in pixels, empty = none: the first pixel is the box 0, 0, 1, 1. Several rows of one
    path are then several boxes of one image, and agree on everything else.

    Args:
        path: the CSV file.
        root: the folder that its paths start from; None = the CSV file's own.
        boxes: a file of boxes in place of such columns, as for the data set "folder".
        classes: the labels in the order of the classes; None = those of the file, sorted (as numbers, if all are).
        ignore: a mask value that means neither object nor background, such as 255.
        val: share (float) or count (int) of every class that goes to "val"; 0 = no such split.
        test: the same for "test".
        seed: of the division.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Raises:
        SightlineError: a column is missing, a label is not among `classes`, a file does not exist, there is one class,
            rows of one path disagree, or there is no box in any image.
    """
    file = locate(path, "path")
    base = file.parent if root is None else locate(root, "root")
    rows = read_csv(file, required=("path", "label"))
    if not rows:
        raise SightlineError(f"path: {file} lists no images; expected one a row")
    if boxed := "x1" in rows[0]:
        if boxes is not None:
            raise SightlineError(f"boxes: {boxes} was given, and {file} has boxes of its own")
        boxes = str(file)
    seen: dict[str, dict[str, str]] = {}  # by path, where rows may be boxes of one image
    names = list(map(str, classes)) if classes is not None else sort_names({row["label"] for row in rows})
    group_names = sort_names({row["group"] for row in rows}) if "group" in rows[0] else []
    listed: dict[str, list[Record]] = defaultdict(list)
    for line, row in enumerate(rows, start=2):
        if row["label"] not in names:
            raise unknown_name(f"class in {file.name}, line {line}:", row["label"], names)
        if group_names and not row["group"]:
            raise SightlineError(f"{file.name}, line {line}: the group is empty; expected one for every image")
        if boxed:
            first = seen.setdefault(row["path"], row)
            for column in ("label", "mask", "split", "group"):
                if row.get(column) != first.get(column):
                    raise SightlineError(
                        f"{file.name}, line {line}: the {column} of {row['path']} is {row[column]!r}, and "
                        f"{first[column]!r} in an earlier row"
                    )
            if row is not first:
                continue
        listed[row.get("split", "")].append(
            Record(
                base / row["path"],
                names.index(row["label"]),
                base / row["mask"] if row.get("mask") else None,
                group_names.index(row["group"]) if group_names else None,
            )
        )
    parts = boxed_parts(listed, boxes)
    make = partial(
        FileDataset,
        classes=names,
        root=base,
        groups=group_names,
        meaning=mask_meaning(ignore),
        skip_corrupt=skip_corrupt,
    )
    return _splits(parts, {"val": val, "test": test}, seed, make)


def with_boxes(records: Sequence[Record], file: str | Path | None) -> list[Record]:
    """The records with the boxes that a file knows of them; as they are where no file is given.

    Args:
        records: the pictures.
        file: what `AnnotatedBoxes` reads: a `.csv` with the columns path,x1,y1,x2,y2 as `sightline boxes` writes it, COCO's
            `.json`, or a folder of Pascal VOC's `.xml`.

    Raises:
        SightlineError: the file is missing or of another kind, or knows none of the pictures.
    """
    if file is None:
        return list(records)
    from sightline.localization.annotations import AnnotatedBoxes

    known = AnnotatedBoxes(locate(file, "boxes"))
    found = [replace(record, boxes=tuple(box.xyxy for box in known.of(str(record.path)))) for record in records]
    if not any(record.boxes for record in found):
        raise SightlineError(f"boxes: {file} has no box in any of the {len(found)} images; are its paths theirs?")
    return found


def boxed_parts(parts: Mapping[str, Sequence[Record]], file: str | None) -> dict[str, list[Record]]:
    """`with_boxes` for the parts of a data set together."""
    found = iter(with_boxes([record for part in parts.values() for record in part], file))
    return {name: [next(found) for _ in part] for name, part in parts.items()}


def read_csv(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv_module.DictReader(handle, restval="")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv_module.Error) as error:
        raise SightlineError(f"cannot read {path}: {error}") from error
    for column in required:
        if column not in (reader.fieldnames or ()):
            raise SightlineError(f"{path} has the columns {reader.fieldnames}; {column!r} is missing")
    return rows


def sort_names(names: set[str]) -> list[str]:
    """Names in a fixed order: as numbers, if all of them are whole numbers."""
    return sorted(names, key=int) if all(n.isdecimal() for n in names) else sorted(names)


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _splits(
    parts: Mapping[str, Sequence[Record]],
    sizes: Mapping[str, float],
    seed: int,
    make: Callable[[Sequence[Record]], FileDataset],
) -> Splits:
    """The parts as given, a missing "val" drawn from "train"; or one part without a name, divided by the sizes."""
    if "" in parts and len(parts) > 1:
        raise SightlineError("some rows have a split and some have none; give every row one, or none")
    pool = "" if "" in parts else "train"
    if pool not in parts:
        raise SightlineError(f"the splits are {sorted(parts)}; 'train' is missing")
    if pool == "train":
        sizes = {name: size for name, size in sizes.items() if name == "val" and name not in parts}
    divided = divide([record.label for record in parts[pool]], sizes, seed)
    drawn = {name: [parts[pool][i] for i in places] for name, places in divided.items()}
    given = {name: part for name, part in parts.items() if name != pool}
    splits = Splits({name: make(part) for name, part in (drawn | given).items()})
    seen = set(splits["train"].labels.tolist())
    for label, name in enumerate(splits.classes):
        if label not in seen:
            raise SightlineError(f"the class {name!r} has no image to train on")
    return splits
