"""The user's own images, listed in a CSV file."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from unicodedata import normalize

from sightline._core.csv_files import is_missing, read_csv
from sightline.data.file_dataset import FileDataset, Record, path_from
from sightline.data.files import locate
from sightline.data.mask_files import mask_meaning
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError, unknown_name
from sightline.formats.box_files import boxed_parts
from sightline.formats.splitting import own_splits, split_name

COLUMNS = ("path", "label", "mask", "avoid", "split", "group", "x1", "y1", "x2", "y2")
BOX_COLUMNS = ("x", "y", "w", "h", "width", "height", "xmin", "ymin", "xmax", "ymax", "bbox")  # of other tools


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
    """Your own images, listed in a CSV file.

    The columns are `path,label[,mask][,avoid][,split][,group][,x1,y1,x2,y2]`; those in brackets are optional.

    Without a column `split` the images are divided; the path of an image, seen from `root`, decides its split, so rows
    which are added later leave the others where they are. With such a column (train, val and test, also Training, valid, dev
    and the like), a missing "val" is taken from "train", and `test` is not used. An empty `mask` means that the image has
    none. A file in `avoid` shows by every value but 0 what must not matter to the answer, such as a watermark; empty = not
    known. Other columns are not read. Spaces around names and values do not count. What pandas takes for a missing value, such
    as nan, None or NA, is an empty value, except for a label that `classes` lists.

    The columns x1, y1, x2, y2 hold a box in pixels of the upright image, empty = none: the first pixel is the box 0, 0, 1, 1.
    Several rows of one path are then several boxes of one image, and agree on everything else.

    Args:
        path: the CSV file.
        root: the folder that its paths start from; None = the CSV file's own.
        boxes: a file of boxes instead of such columns, as for the data set "folder".
        classes: the labels in the order of the classes; None = those of the file, sorted (as numbers, if all are).
        ignore: a value of the file in `mask` that means neither object nor background, such as 255.
        val: share (float), met on average, or count (int) of every class that goes to "val"; 0 = no such split.
        test: the same for "test".
        seed: of the division.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Raises:
        SightlineError: a column is missing, a label is not among `classes`, a file does not exist, there is one class,
            a label is empty, rows of one path disagree, no image has a box, or a box is not in pixels x1, y1, x2, y2
            of its image.
    """
    file = locate(path, "path")
    base = file.parent if root is None else locate(root, "root")
    rows = read_csv(file, required=("path", "label"))
    if not rows:
        raise SightlineError(f"path: {file} lists no images; expected one per row")
    if boxed := any(edge in rows[0][1] for edge in ("x1", "y1", "x2", "y2")):
        if boxes is not None:
            raise SightlineError(f"boxes: {boxes} was given, and {file} has boxes too; leave one out")
        boxes = str(file)
    given = [str(name).strip() for name in classes or ()]
    for line, row in rows:
        for column, value in row.items():
            if not is_missing(value) or (column == "label" and value in given):
                continue
            if column in ("path", "label", "group"):
                raise SightlineError(f"{file.name}, line {line}: {_missing(column, value)}")
            row[column] = ""
    _warn_of_columns(file.name, list(rows[0][1]))
    seen: dict[str, dict[str, str]] = {}  # by path, where rows may be boxes of one image
    names = given if classes is not None else sort_names({row["label"] for _, row in rows})
    _warn_of_similar(file.name, names)
    group_names = sort_names({row["group"] for _, row in rows}) if "group" in rows[0][1] else []
    listed: dict[str, list[Record]] = defaultdict(list)
    for line, row in rows:
        if row["label"] not in names:
            raise unknown_name(f"class in {file.name}, line {line}:", row["label"], names)
        if boxed:
            first = seen.setdefault(row["path"], row)
            for column in ("label", "mask", "avoid", "split", "group"):
                if row.get(column) != first.get(column):
                    raise SightlineError(
                        f"{file.name}, line {line}: the {column} of {row['path']} is {row[column]!r}, and "
                        f"{first[column]!r} in an earlier row"
                    )
            if row is not first:
                continue
        split = row.get("split", "")
        listed[split_name(split) or split].append(
            Record(
                _file(base, row["path"]),
                names.index(row["label"]),
                _file(base, row["mask"]) if row.get("mask") else None,
                group_names.index(row["group"]) if group_names else None,
                avoid=_file(base, row["avoid"]) if row.get("avoid") else None,
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


def _file(base: Path, name: str) -> Path:
    """Return the file of a name, which may have been written on Windows, with backslashes."""
    path = base / name
    return base / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def _missing(column: str, value: str) -> str:
    """Return the error message for an empty value."""
    if not value:
        return f"the {column} is empty; expected one for every image"
    instead = "list it in classes= if a class has this name" if column == "label" else "give it another name"
    return f"the {column} is {value!r}, which stands for a missing value; expected one for every image, or {instead}"


def _warn_of_columns(name: str, columns: Sequence[str]) -> None:
    """Warn of columns that are not read although their names say what the reader looks for."""
    likely = [
        column
        for column in set(columns) - set(COLUMNS)
        if column.lower() in BOX_COLUMNS or get_close_matches(column.lower(), COLUMNS, n=1, cutoff=0.8)
    ]
    if likely:
        warnings.warn(
            f"{name}: the columns {', '.join(map(repr, sorted(likely)))} are not read; known are {', '.join(COLUMNS)}",
            stacklevel=4,
        )


def _warn_of_similar(name: str, classes: Sequence[str]) -> None:
    """Warn of classes whose names look equal."""
    similar: dict[str, list[str]] = defaultdict(list)
    for one in classes:
        similar[" ".join(normalize("NFKC", one).casefold().split())].append(one)
    if several := [names for names in similar.values() if len(names) > 1]:
        told = "; ".join(" and ".join(map(repr, names)) for names in several)
        warnings.warn(f"{name}: some classes differ only in case, spaces or accents' encoding: {told}", stacklevel=4)


def sort_names(names: set[str]) -> list[str]:
    """Names in a fixed order: as numbers, if all of them are whole numbers."""
    return sorted(names, key=int) if all(n.isdecimal() for n in names) else sorted(names)
