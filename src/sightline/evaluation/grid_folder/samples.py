"""samples.parquet: every value of every image."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sightline._core.optional import requires_extra
from sightline._core.reading import reading
from sightline.evaluation.grid_folder.cells import Cell, Column
from sightline.evaluation.grid_folder.rows import require_columns

with requires_extra("report", "a table of evaluations"):
    import pyarrow as pa
    import pyarrow.parquet as pq

FILE = "samples.parquet"
NAMES = ("model", "explainer", "metric")
NUMBERS = ("index", "label", "predicted")


def samples_parquet(columns: Iterable[tuple[Cell, Column]]) -> bytes:
    """Return the values image by image as a Parquet file."""
    rows: dict[str, list[Any]] = {key: [] for key in (*NAMES, "index", "path", "label", "predicted", "value")}
    for cell, column in columns:
        for key, name in zip(NAMES, cell):
            rows[key].extend([name] * len(column.value))
        for key in NUMBERS:
            rows[key].extend(getattr(column, key).tolist())
        rows["path"].extend(column.path)
        rows["value"].extend(column.value.tolist())
    types = {key: pa.dictionary(pa.int32(), pa.string()) for key in (*NAMES, "path")}
    types |= dict.fromkeys(NUMBERS, pa.int64())
    schema = pa.schema([(key, types.get(key, pa.float32())) for key in rows])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(rows, schema=schema), sink)
    return sink.getvalue()


def read_samples(path: Path) -> dict[Cell, Column]:
    """Return the values of each cell image by image."""
    with reading(path):
        table = pq.read_table(path)
    require_columns(path, table.column_names, (*NAMES, "path", *NUMBERS, "value"))
    if not len(table):
        return {}
    texts = {name: table[name].cast(pa.string()).combine_chunks().dictionary_encode() for name in NAMES}
    codes = np.stack([texts[name].indices.to_numpy() for name in NAMES])
    index, label, predicted = (table[key].to_numpy() for key in NUMBERS)
    value, paths = table["value"].to_numpy(), table["path"].cast(pa.string()).to_numpy()
    order = np.lexsort((index, *codes))
    starts = np.flatnonzero(np.any(np.diff(codes[:, order], axis=1) != 0, axis=0)) + 1
    columns = {}
    for rows in np.split(order, starts):
        cell = Cell(*(texts[name].dictionary[int(code)].as_py() for name, code in zip(NAMES, codes[:, rows[0]])))
        columns[cell] = Column(
            index[rows], paths[rows].tolist(), label[rows], predicted[rows], value[rows].astype(np.float64)
        )
    return columns
