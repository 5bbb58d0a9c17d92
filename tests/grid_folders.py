"""Folders of evaluations of models x explainers x metrics, written from values that a test gives."""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save_file

from sightline.statistics.pairs import Paired, holm, paired

HIGHER = {"insertion": True, "deletion": False, "coherency": True, "complexity": False, "accuracy": True}
TABLE = ("model", "explainer", "metric", "value", "low", "high", "n", "higher_is_better", "printed")
TESTS = (
    "metric", "model", "explainer", "against_model", "against_explainer", "difference", "low", "high", "p", "p_holm", "n",
)  # fmt: skip


def write_grid(
    folder: Path,
    values: Mapping[tuple[str, str, str], Sequence[float]],
    *,
    title: str = "A grid",
    item: str = "grid",
    curves: Mapping[tuple[str, str, str], Sequence[float]] | None = None,
    gallery: Mapping[str, torch.Tensor] | None = None,
    tested: bool = True,
    prefix: str = "images/",
    predicted: int = 0,
) -> Path:
    """Write a folder; (model, explainer, metric) -> the values of images 0, 1, ..., as many as that row has seen."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(
        yaml.safe_dump({"item": item, "title": title, "notes": ["Made by a test."], "seed": 0})
    )
    table, samples = [], []
    for (model, explainer, metric), some in values.items():
        array = np.array(some, np.float32).astype(float)
        known = array[~np.isnan(array)]
        mean = known.mean() if len(known) else np.nan
        half = 1.96 * known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else 0.0
        table.append([model, explainer, metric, mean, mean - half, mean + half, len(known), HIGHER[metric], None])
        samples += [
            [model, explainer, metric, i, f"{prefix}{i}.jpg", 0, predicted, float(v)] for i, v in enumerate(array)
        ]
    _csv(folder / "table.csv", TABLE, table)
    names = ("model", "explainer", "metric", "index", "path", "label", "predicted", "value")
    columns = {name: [row[i] for row in samples] for i, name in enumerate(names)}
    types = {name: pa.dictionary(pa.int32(), pa.string()) for name in ("model", "explainer", "metric", "path")}
    types |= dict.fromkeys(("index", "label", "predicted"), pa.int64())
    schema = pa.schema([(name, types.get(name, pa.float32())) for name in names])
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), folder / "samples.parquet")
    points = [
        [*key, at, value]
        for key, some in (curves or {}).items()
        for at, value in zip(np.linspace(0, 1, len(some)), some)
    ]
    _csv(folder / "curves.csv", ("model", "explainer", "metric", "share", "value"), points)
    _csv(folder / "tests.csv", TESTS, _tests(values) if tested else [])
    if gallery is not None:
        save_file(dict(gallery), folder / "gallery.safetensors")
    return folder


def _tests(values: Mapping[tuple[str, str, str], Sequence[float]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for model, metric in dict.fromkeys((m, metric) for m, explainer, metric in values if explainer):
        having = [e for m, e, other in values if (m, other) == (model, metric)]
        found = []
        for one, other in combinations(having, 2):
            first, second = (values[model, e, metric] for e in (one, other))
            both = min(len(first), len(second))
            if (test := _paired(tuple(first[:both]), tuple(second[:both]))) is not None:
                found.append((one, other, test))
        for (one, other, t), p_holm in zip(found, holm([test.p for *_, test in found])):
            rows.append([metric, model, one, model, other, t.difference, t.low, t.high, t.p, p_holm, t.n])
    return rows


@cache  # several tests write the same values
def _paired(first: tuple[float, ...], second: tuple[float, ...]) -> Paired | None:
    return paired(np.array(first, np.float32), np.array(second, np.float32))


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows])


N = 40  # images of `settled`


def noise(seed, n=N, scale=0.01):
    return np.random.default_rng(seed).normal(0, scale, n)


def settled():
    """Three explainers and Random-CAM whose order nobody doubts, in insertion and deletion."""
    means = {"Random-CAM": (0.2, 0.6), "A": (0.5, 0.3), "B": (0.7, 0.4), "C": (0.4, 0.2)}
    return {
        ("net", name, metric): mean + noise(7 * i + j)
        for i, (name, both) in enumerate(means.items())
        for j, (metric, mean) in enumerate(zip(("insertion", "deletion"), both))
    }
