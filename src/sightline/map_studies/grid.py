"""Grids: models x explainers x metrics over the same images, as one table with intervals and paired tests."""

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.evaluation.grid_folder import Cell, Column, curves, gallery, paired_tests, samples
from sightline.evaluation.precision_change import describe_change
from sightline.map_studies.grid_keys import GridKeys
from sightline.map_studies.grid_work import GridWorker
from sightline.metrics import METRICS, PerImageMetric
from sightline.reporting.formatting import title
from sightline.reporting.markdown import markdown
from sightline.statistics.pairs import LEVEL, PairedTest, adjust_tests, paired
from sightline.studies.study import (
    KINDS,
    Done,
    Part,
)
from sightline.studies.tables import in_brackets

Row = dict[str, Any]


@KINDS.register("grid")
class Grid(GridKeys):
    """Models x explainers x metrics, as one table with intervals and paired tests; the keys are those of `GridKeys`."""

    shared_images: ClassVar[bool] = True

    kind: Literal["grid"]

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Open the data and load the models."""
        return GridWorker(self, device).work

    def table(self, done: Done) -> list[Row]:
        """Return one row per model, explainer and metric."""
        rows = []
        for model, row, part in self._done(done):
            printed = self.paper_values.get(model, {}).get(row, {})
            for figure in part.values["figures"]:
                rows.append({"model": model, "explainer": row, **figure, "printed": printed.get(figure["metric"])})
        return rows

    def summary(self, done: Done) -> str:
        """For each model a table explainers x metrics, and what the paired tests decide."""
        sections = [
            "Value (95 % bootstrap interval over images)"
            + ("; in square brackets the paper's figure" if self.paper_values else "")
            + ". Arrows say which way is better."
        ]
        for model in self.models:
            about: list[str] = next(
                (part.values.get("about", []) for name, _, part in self._done(done) if name == model.label), []
            )
            facts = [f"`{model.name}` (weights: {model.weights or 'random'})", *about]
            sections.append(f"## {model.label}\n\n" + "\n".join(f"- {fact}" for fact in facts))
            sections.append(self._model_table(model.label, done))
        tests = [test for _, test in self._tests(done)]
        if significant := [test for test in tests if test.p_holm < LEVEL]:
            sections.append(
                f"{len(significant)} of the {len(tests)} paired differences within a model are significant at the "
                "5 % level (sign-flip test over the images that both rows see, Holm's correction for each model and metric): "
                "[tests.csv](tests.csv)."
            )
        return "\n\n".join(sections)

    def files(self, done: Done) -> dict[str, bytes]:
        """Every value of every image, the mean curves, the paired tests, and some images with all their maps."""
        points = (
            (Cell(model, row, metric), at, score)
            for model, row, part in self._done(done)
            for metric, curve in part.values["curves"].items()
            for at, score in zip(curve["at"], curve["score"])
        )
        found = {
            samples.FILE: samples.samples_parquet(self._samples(done)),
            curves.FILE: curves.curves_csv(points),
            paired_tests.FILE: paired_tests.paired_tests_csv(self._tests(done)),
        }
        first = next((part for _, _, part in self._done(done) if "images" in part.tensors), None)
        if first is not None:
            images = {"index": first.tensors["shown"]}
            images |= {key: first.tensors[key] for key in ("images", "masks") if key in first.tensors}
            maps = {
                (model, row): part.tensors["maps"] for model, row, part in self._done(done) if "maps" in part.tensors
            }
            found[gallery.FILE] = gallery.gallery_safetensors(images, maps)
        return found

    def _done(self, done: Done) -> Iterator[tuple[str, str, Part]]:
        """Model, explainer ("" where maps play no part) and part, in the table's order."""
        for model in self.models:
            for row in ["", *(row.label for row in self.explainers)]:
                name = f"{model.label}/{row}" if row else model.label
                if name in done:
                    yield model.label, row, done[name]

    def _model_table(self, model: str, done: Done) -> str:
        rows = {row: part for name, row, part in self._done(done) if name == model}
        named_metrics = [m for m in self.metrics if METRICS[m].capabilities["needs_maps"]]
        header = ["Explainer", *(f"{title(m)} {_arrow(m)}" for m in named_metrics), "n"]
        lines = []
        for row in self.explainers:
            part = rows.get(row.label)
            if part is None:
                lines.append([row.label, *("…" for _ in named_metrics), ""])
            elif "not_defined" in part.values:
                lines.append([row.label, *("not defined" for _ in named_metrics), ""])
            else:
                figures = {figure["metric"]: figure for figure in part.values["figures"]}
                printed = self.paper_values.get(model, {}).get(row.label, {})
                cells = [_cell(figures.get(metric), printed.get(metric)) for metric in named_metrics]
                lines.append([row.label, *cells, str(part.values["n"])])
        text = markdown(header, lines)
        others = [
            f"{title(figure['metric'])} {_arrow(figure['metric'])}: {_cell(figure, None)}, n = {figure['n']}."
            for figure in (rows[""].values["figures"] if "" in rows else [])
        ]
        left_out = {f"{key}: {why}" for part in rows.values() for key, why in part.values.get("left_out", {}).items()}
        changes = [each for part in rows.values() if (each := part.values.get("precision_change"))]
        return "\n\n".join(
            [text, *others, *(f"Not measured: {each}." for each in sorted(left_out)), *map(describe_change, changes)]
        )

    def _columns(self, done: Done) -> Iterator[tuple[str, str, str, Part, Tensor]]:
        """Model, explainer, metric, part and the values (n,) of the part's images."""
        for model, row, part in self._done(done):
            for key, values in part.tensors.items():
                if key.startswith("values/"):
                    yield model, row, key.removeprefix("values/"), part, values

    def _samples(self, done: Done) -> Iterator[tuple[Cell, Column]]:
        """Yield the values image by image."""
        for model, row, metric, part, values in self._columns(done):
            index, label, predicted = (part.tensors[key].numpy() for key in ("index", "label", "predicted"))
            column = Column(index, part.values["paths"], label, predicted, values.numpy())
            yield Cell(model, row, metric), column

    def _tests(self, done: Done) -> Iterator[tuple[tuple[Cell, Cell], PairedTest]]:
        """Paired differences between the explainers of a model, and between models under an explainer."""
        values: dict[tuple[str, str], dict[str, tuple[Tensor, Tensor]]] = {}
        for model, row, metric, part, column in self._columns(done):
            if METRICS[metric].factory.resample is PerImageMetric.resample:  # type: ignore[attr-defined]
                values.setdefault((model, metric), {})[row] = (part.tensors["index"], column)
        families: dict[tuple[str, str], list[tuple[tuple[str, str], tuple[str, str]]]] = {}
        for model, metric in values:
            rows = list(values[model, metric])
            families[f"explainers of {model}", metric] = [((model, a), (model, b)) for a, b in combinations(rows, 2)]
        for metric in self.metrics:
            for row in ["", *(row.label for row in self.explainers)]:
                having = [m.label for m in self.models if row in values.get((m.label, metric), {})]
                families[f"models under {row}", metric] = [((a, row), (b, row)) for a, b in combinations(having, 2)]
        for (_, metric), pairs in families.items():
            found = {}
            for first, second in pairs:
                test = paired(
                    *_aligned(values[first[0], metric][first[1]], values[second[0], metric][second[1]]), self.seed
                )
                if test is not None:
                    found[Cell(*first, metric), Cell(*second, metric)] = test
            yield from adjust_tests(found).items()


def _aligned(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values of two columns for the images that both have; indices are in increasing order."""
    (one, a), (other, b) = first, second
    return a[torch.isin(one, other)].numpy(), b[torch.isin(other, one)].numpy()


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].capabilities["higher_is_better"] else "↓"


def _cell(figure: Row | None, printed: float | None) -> str:
    """Format a value with its interval and the paper's; a dash if it is not defined."""
    brackets = in_brackets(printed)
    if figure is None or math.isnan(figure["value"]):
        return f"–{brackets}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}){brackets}"
