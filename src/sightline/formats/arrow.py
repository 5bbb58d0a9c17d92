"""Datasets of Hugging Face that were saved to disk, read from the Arrow files without loading them into memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline._core.optional import requires_extra
from sightline.data.contents import content_of_files
from sightline.data.files import UnreadableFileError, locate
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError
from sightline.formats.packed import Packed, PackedDataset, name_classes
from sightline.formats.splitting import divide_parts, split_name

if TYPE_CHECKING:
    from datasets import Dataset

REGIONS = ("mask", "avoid")


class Table:
    """A table whose images stay encoded.

    Args:
        name: What it is called in the paths of its images.
        rows: The table.
        image: Column of the images.
        label: Column of the labels.
    """

    def __init__(self, name: str, rows: "Dataset", image: str, label: str) -> None:
        from datasets import Image

        for column in (image, label):
            if column not in rows.column_names:
                raise SightlineError(
                    f"the table {name} has the columns {', '.join(rows.column_names)}; {column!r} is missing"
                )
        self.name, self.image, self.fingerprint = name, image, str(rows._fingerprint)
        self.labels: list[Any] = rows.data.column(label).to_pylist()
        self.class_names: list[str] | None = getattr(rows.features[label], "names", None)
        self.regions = {r: rows.data.column(r).is_valid().to_pylist() for r in REGIONS if r in rows.column_names}
        for column in (image, *self.regions):
            if not isinstance(rows.features[column], Image):
                raise SightlineError(
                    f"the column {column} of the table {name} is {rows.features[column]}; expected images"
                )
            rows = rows.cast_column(column, Image(decode=False))
        self.rows = rows.select_columns([image, *self.regions])

    def read(self, row: int) -> Packed:
        """Return the files in a row."""
        cells = self.rows[row]
        image, mask, avoid = (_content(cells.get(column)) for column in (self.image, *REGIONS))
        return Packed(image or b"", mask, avoid)


def _content(cell: Mapping[str, Any] | None) -> bytes | None:
    """Return the content of an image file that a table holds or names."""
    if cell is None:
        return None
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    try:
        return Path(cell["path"]).read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"cannot read {cell['path']}: {error.strerror}") from error


@dataclass(frozen=True)
class Row:
    """One image: its table, its row and its class."""

    table: Table
    row: int
    label: int


class ArrowDataset(PackedDataset):
    """Rows of Arrow tables with images, read in any order; the tables are mapped into memory and not loaded.

    Args:
        rows: The images, all of one table.
        classes: Names of the classes.
        ignore: As for `PackedDataset`.
    """

    def __init__(self, rows: Sequence[Row], classes: Sequence[str], ignore: int | None) -> None:
        self._table, self._rows = rows[0].table, [row.row for row in rows]
        has_mask, has_avoid = (
            [self._table.regions[r][row] for row in self._rows] if r in self._table.regions else [False] * len(rows)
            for r in REGIONS
        )
        told = (self._table.name, self._table.fingerprint, self._rows)
        super().__init__(classes, [row.label for row in rows], has_mask, has_avoid, told, ignore)

    def path(self, index: int) -> str:
        """Return the table and the row of the image."""
        return f"{self._table.name}/{self._rows[index]}"

    def unpack(self, index: int) -> Packed:
        """Read the files of the image at an index."""
        return self._table.read(self._rows[index])

    @cached_property
    def content(self) -> str | None:
        """16 hexadecimal digits that change with the content of the Arrow files, see `content_of_files`."""
        return content_of_files([Path(file["filename"]) for file in self._table.rows.cache_files])


@DATASETS.register("arrow", masks="some", groups=False)
def arrow(
    root: str,
    *,
    image: str = "image",
    label: str = "label",
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Datasets of Hugging Face that `save_to_disk` wrote, read from the Arrow files without loading them into memory.

    Rows are read in any order: everything works as with single files. The columns `mask` and `avoid` are read where the
    table has them; an empty cell means that the image has none. A `DatasetDict` has its own splits: a missing "val" is taken
    from "train", and `test` is not used. A single `Dataset` is divided by the numbers of its rows.

    A stream (`load_dataset(..., streaming=True)`) has neither a length nor rows that can be read again, which training,
    evaluation and stores of maps need. Save it first: `Dataset.from_generator(lambda: iter(stream),
    features=stream.features).save_to_disk(folder)`, which keeps one batch in memory.

    Args:
        root: The folder that `save_to_disk` wrote.
        image: Column of the images.
        label: Column of the labels: class indices, `ClassLabel` or names.
        classes: The names of the classes in their order; None = those of `ClassLabel`, else of the labels.
        ignore: A value of the masks that means neither object nor background, such as 255.
        val: Share (float), met on average, or count (int) of every class that goes to "val"; 0 = no such split.
        test: The same for "test".
        seed: Seed of the division.

    Raises:
        SightlineError: The folder is of another kind, or a column is missing.
    """
    with requires_extra("datasets", "the dataset 'arrow'"):
        from datasets import Dataset, load_from_disk

    base = locate(root, "root")
    try:
        saved = load_from_disk(str(base))
    except (OSError, ValueError) as error:
        raise SightlineError(
            f"root: {base} is no folder that save_to_disk of Hugging Face datasets wrote: {error}"
        ) from error
    found = {"": saved} if isinstance(saved, Dataset) else saved
    tables = {name: Table(name or base.name, rows, image, label) for name, rows in found.items()}
    first = next(iter(tables.values()))
    values = [value for table in tables.values() for value in table.labels]
    indices, known = name_classes(values, classes or first.class_names, f"the column {label}")
    places = iter(indices)
    parts = {
        split_name(name) or name: [Row(table, row, next(places)) for row in range(len(table.labels))]
        for name, table in tables.items()
    }
    divided = divide_parts(parts, lambda row: str(row.row), {"val": val, "test": test}, seed)
    return Splits({name: ArrowDataset(rows, known, ignore) for name, rows in divided.items()})
