"""The user's own images, listed in a CSV file."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from sightline._core.csv_files import read_csv
from sightline.data.file_dataset import FileDataset, Record, path_from
from sightline.data.files import locate
from sightline.data.formats.box_files import boxed_parts
from sightline.data.formats.splitting import own_splits
from sightline.data.mask_files import mask_meaning
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError, unknown_name


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

    Without a column `split` the images are divided; the path of an image, seen from `root`, decides its split, so that rows
    which are added later leave the others where they are. With such a column, a missing "val" is taken from "train", and `test`
    is not used. An empty `mask` means that the image has none. Other columns are not read.

    The columns x1, y1, x2, y2 hold a box in pixels, empty = none: the first pixel is the box 0, 0, 1, 1. Several rows of one
    path are then several boxes of one image, and agree on everything else.

    Args:
        path: the CSV file.
        root: the folder that its paths start from; None = the CSV file's own.
        boxes: a file of boxes in place of such columns, as for the data set "folder".
        classes: the labels in the order of the classes; None = those of the file, sorted (as numbers, if all are).
        ignore: a mask value that means neither object nor background, such as 255.
        val: share (float), met on average, or count (int) of every class that goes to "val"; 0 = no such split.
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
    return own_splits(parts, {"val": val, "test": test}, seed, make, partial(path_from, base))


def sort_names(names: set[str]) -> list[str]:
    """Names in a fixed order: as numbers, if all of them are whole numbers."""
    return sorted(names, key=int) if all(n.isdecimal() for n in names) else sorted(names)
