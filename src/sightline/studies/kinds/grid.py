"""Grids: models x explainers x metrics over the same images, as one table with intervals and paired tests."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import combinations
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from sightline._core.seeding import generator
from sightline._core.strict import Count, Positive, StrictModel
from sightline.data.files import locate
from sightline.data.loader import create_loader
from sightline.errors import NotDefinedError, SightlineError
from sightline.evaluation.grid_folder import Cell, Column, curves, gallery, paired_tests, samples
from sightline.evaluation.map_sources import Source
from sightline.evaluation.measuring import evaluate_model
from sightline.evaluation.statistics import LEVEL, PairedTest, adjust_tests, paired
from sightline.explainers import create_explainer
from sightline.metrics import METRICS, PerImageMetric
from sightline.network.features import class_features
from sightline.reporting.formatting import title
from sightline.reporting.markdown import markdown
from sightline.studies.image_study import ImageStudy, load_subjects
from sightline.studies.study import (
    KINDS,
    Done,
    LabelledModel,
    Part,
    check_labels,
    scale_count,
)
from sightline.studies.subject import Subject

Row = dict[str, Any]


class Rows(StrictModel):
    """Whose maps are judged: an explainer by name, a function, or maps that were made before.

    Attributes:
        label: what the table calls it.
        name: of an explainer.
        options: of the explainer.
        layer: where it takes its maps; null takes the model's.
        function: `module:function`, called as `function(model, inputs, targets)` (see `FunctionExplainer`).
        maps: a .npy file with maps (N, h, w) of the split's images.
        features: the target of LOTS where it comes from training images of the image's class: `class` or `mean`.
        num_images: how many images it sees, the first of those that all see; null takes all of them.
    """

    label: str
    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    layer: str | None = None
    function: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    maps: str | None = None
    features: Literal["class", "mean"] | None = None
    num_images: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [key for key in ("name", "function", "maps") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{self.label}: {' and '.join(given) or 'nothing'} is given; expected name, function or maps"
            )
        if self.name is None and (self.options or self.features or self.layer):
            raise ValueError(f"{self.label}: options, layer and features are for an explainer by name")
        return self


def _row(value: Any) -> Any:
    """An explainer's name alone is its label too."""
    return {"label": value, "name": value} if isinstance(value, str) else value


@KINDS.register("grid")
class Grid(ImageStudy):
    """Models x explainers x metrics.

    Attributes:
        num_images: how many images are drawn; null takes all. A smaller number is part of a larger one.
        batch: images that are explained together.
        models: what is explained.
        explainers: whose maps are judged.
        metrics: metric -> its options.
        target: the class that maps and scores are about: `predicted` or `label`.
        contrast: maps explain why it is that class and not the likeliest other one.
        gallery: how many images are kept with their maps.
        compiled: let torch.compile make the metrics' calls to the model faster.
        paper_values: model -> explainer -> metric -> the paper's figure.
    """

    kind: Literal["grid"]
    num_images: Positive | None = None
    batch: Positive = 16
    models: Annotated[list[LabelledModel], Field(min_length=1)]
    explainers: Annotated[list[Annotated[Rows, BeforeValidator(_row)]], Field(min_length=1)]
    metrics: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    target: Literal["predicted", "label"] = "predicted"
    contrast: Annotated[bool, Field(strict=True)] = False
    gallery: Count = 12
    compiled: Annotated[bool, Field(strict=True)] = False
    paper_values: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("models", [model.label for model in self.models])
        check_labels("explainers", [row.label for row in self.explainers])
        return self

    def parts(self) -> list[str]:
        """One explainer on one model each; under the model's own name, what no map plays a part in."""
        rows = ["", *(f"/{row.label}" for row in self.explainers)]
        return [f"{model.label}{row}" for row in rows for model in self.models]

    def scaled(self, scale: float) -> Self:
        """Fewer images."""
        if scale == 1:
            return self
        if self.num_images is None:
            raise SightlineError(
                "--scale takes a share of `num_images`, which is null (all images): give num_images=NUMBER instead"
            )
        rows = [
            row if row.num_images is None else row.model_copy(update={"num_images": scale_count(row.num_images, scale)})
            for row in self.explainers
        ]
        return self.model_copy(update={"num_images": scale_count(self.num_images, scale), "explainers": rows})

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Open the data and load the models."""
        return _Worker(self, device).work

    def table(self, done: Done) -> list[Row]:
        """A row a model, explainer and metric."""
        rows = []
        for model, row, part in self._done(done):
            printed = self.paper_values.get(model, {}).get(row, {})
            for figure in part.values["figures"]:
                rows.append({"model": model, "explainer": row, **figure, "printed": printed.get(figure["metric"])})
        return rows

    def summary(self, done: Done) -> str:
        """For each model a table explainers x metrics, and what the paired tests settle."""
        sections = [
            "Value (95 % bootstrap interval over images)"
            + ("; in square brackets the paper's figure" if self.paper_values else "")
            + ". Arrows say which way is better."
        ]
        for model in self.models:
            sections.append(f"## {model.label}\n\n`{model.name}` (weights: {model.weights or 'random'})")
            sections.append(self._model_table(model.label, done))
        tests = [test for _, test in self._tests(done)]
        if settled := [test for test in tests if test.p_holm < LEVEL]:
            sections.append(
                f"{len(settled)} of the {len(tests)} paired differences within a model are settled at the "
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
        return "\n\n".join([text, *others, *(f"Not measured: {each}." for each in sorted(left_out))])

    def _columns(self, done: Done) -> Iterator[tuple[str, str, str, Part, Tensor]]:
        """Model, explainer, metric, part and the values (n,) of the part's images."""
        for model, row, part in self._done(done):
            for key, values in part.tensors.items():
                if key.startswith("values/"):
                    yield model, row, key.removeprefix("values/"), part, values

    def _samples(self, done: Done) -> Iterator[tuple[Cell, Column]]:
        """The values image by image."""
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


class _Worker:
    """A grid's images and models, opened once."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        for name in grid.metrics:
            METRICS[name]
        self.grid = grid
        self.device = device
        self.selection = grid.selection()
        total = len(self.selection.held_out)
        for key, wanted in [
            ("num_images", grid.num_images),
            *((f"num_images of {r.label}", r.num_images) for r in grid.explainers),
        ]:
            if wanted is not None and wanted > total:
                raise SightlineError(f"{key} is {wanted}; the data has {total} images")
        order = torch.randperm(total, generator=generator(grid.seed, "images")).tolist()
        self.drawn = order[: grid.num_images]
        self.rows = {row.label: row for row in grid.explainers}
        least = min(min(row.num_images or total for row in grid.explainers), len(self.drawn))
        self.kept = set(self.drawn[:least][: grid.gallery])  # images that every row sees
        if any(row.features for row in grid.explainers):
            self.selection.check_training()
        for row in grid.explainers:
            if row.name is not None and row.features is None:
                create_explainer(row.name, **row.options)
        self.sources = {row.label: _given(row) for row in grid.explainers if row.name is None}
        self.subjects = load_subjects(grid.models, device, grid.seed)

    def work(self, part: str) -> Part:
        """Judge one explainer's maps of one model."""
        model, row = _split(part, self.subjects)
        subject = self.subjects[model]
        wanted = {
            name: options
            for name, options in self.grid.metrics.items()
            if METRICS[name].capabilities["needs_maps"] == bool(row)
        }
        places = sorted(self.drawn[: self.rows[row].num_images] if row else self.drawn)
        dataset = self.selection.held_out
        if not wanted:
            return Part({"figures": [], "curves": {}, "paths": [], "n": len(places)})
        try:
            found = evaluate_model(
                subject.model,
                create_loader(
                    dataset, size=subject.spec.size[0], batch_size=self.grid.batch, train=False, indices=places
                ),
                {row: self._source(row, subject)} if row else {},
                wanted,
                input_spec=subject.spec,
                layer=self._layer(row, subject),
                target=self.grid.target,
                contrast=self.grid.contrast,
                gallery=[place for place, index in enumerate(places) if index in self.kept] if row else 0,
                seed=self.grid.seed,
                compiled=self.grid.compiled,
                progress=True,
            )
        except NotDefinedError as error:
            return Part({"not_defined": str(error), "figures": [], "curves": {}, "paths": [], "n": 0})
        keys = ("metric", "value", "low", "high", "n", "higher_is_better")
        values = {
            "figures": [{key: getattr(result, key) for key in keys} for result in found.results],
            "curves": {
                metric: {"at": curve.at.tolist(), "score": curve.score.tolist()}
                for metric, curve in found.curves.get(row, {}).items()
            },
            "paths": [dataset.path(place) for place in places],
            "n": len(places),
            "left_out": found.facts["left_out"],
        }
        tensors = {key: found.samples[key].to(torch.int64) for key in ("index", "label", "predicted")}
        tensors |= {f"values/{r.metric}": found.samples[r.column].float() for r in found.results}
        if found.gallery is not None:
            shown = found.gallery
            tensors |= {"shown": shown.index, "images": shown.images, "maps": shown.maps[row]}
            if found.gallery.masks is not None:
                tensors["masks"] = found.gallery.masks
        return Part(values, tensors)

    def _layer(self, row: str, subject: Subject) -> str | None:
        """Where an explainer by name takes its maps."""
        if not row or self.rows[row].name is None:
            return None
        return self.rows[row].layer or subject.layer_for(str(self.rows[row].name))

    def _source(self, row: str, subject: Subject) -> Source:
        if row in self.sources:
            return self.sources[row]
        wanted = self.rows[row]
        options = dict(wanted.options)
        if wanted.features is not None:
            labels = self.selection.held_out.labels[torch.tensor(self.drawn)].unique()
            batches = self.selection.training(labels, subject.spec.size[0])
            features = class_features(subject.model, batches, input_spec=subject.spec, seed=self.grid.seed)
            options |= {"target": wanted.features, "class_features": features}
        return create_explainer(str(wanted.name), **options)


def _given(row: Rows) -> Source:
    """A function, or maps that were made before."""
    if row.maps is not None:
        path = locate(row.maps, f"maps of {row.label}")
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            raise SightlineError(f"maps of {row.label}: {path} is not a .npy file of numbers ({error})") from error
    module, _, name = str(row.function).partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a function of a file in the folder where the command runs
    try:
        return attrgetter(name)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise SightlineError(f"function of {row.label}: {row.function!r} cannot be had ({error})") from error


def _split(part: str, models: Iterable[str]) -> tuple[str, str]:
    """The model and the explainer of a part's name, either of which may hold a slash."""
    model = max((m for m in models if part == m or part.startswith(f"{m}/")), key=len)
    return model, part[len(model) + 1 :]


def _aligned(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values of two columns for the images that both have; indices are in increasing order."""
    (one, a), (other, b) = first, second
    return a[torch.isin(one, other)].numpy(), b[torch.isin(other, one)].numpy()


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].capabilities["higher_is_better"] else "↓"


def _cell(figure: Row | None, printed: float | None) -> str:
    """A value with its interval and the paper's; a dash where it is not defined."""
    beside = "" if printed is None else f" [{printed:.3f}]"
    if figure is None or math.isnan(figure["value"]):
        return f"–{beside}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}){beside}"
