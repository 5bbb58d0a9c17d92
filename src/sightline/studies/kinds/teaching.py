"""Teaching: ways to train one model, each with several seeds, some of them from a first model and the maps that explain it."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from sightline._core.strict import Positive, Section
from sightline.data import Batch
from sightline.data.loader import create_loader
from sightline.data.map_store import MapStore
from sightline.errors import SightlineError
from sightline.evaluation.measuring import evaluate_model
from sightline.explainers import create_explainer
from sightline.explainers.maps import compute_maps
from sightline.reporting.markdown import markdown
from sightline.studies.study import KINDS, Done, Part, Study, check_labels, scale_count
from sightline.training import Recipe, Run, load_run, train

FIRST = "first"
Values = dict[str, Any]


class Teacher(Section):
    """Maps of the training images, made by explaining the first model for their labels, and kept in a map store.

    Attributes:
        name: of an explainer.
        options: of the explainer.
    """

    name: str
    options: Values = Field(default_factory=dict)


class Row(Section):
    """A way of training.

    Attributes:
        label: what the table calls it.
        recipe: keys of the recipe that it changes.
        first: begin with the weights of the first model.
        maps: the teacher whose stored maps it learns from.
        against: the rows that it is compared with, seed by seed.
        seeds: how many of the study's seeds it is trained with; null takes all.
        paper_values: the paper's accuracy in per cent.
    """

    label: str
    recipe: Values = Field(default_factory=dict)
    first: Annotated[bool, Field(strict=True)] = False
    maps: str | None = None
    against: list[str] = Field(default_factory=list)
    seeds: Positive | None = None
    paper_values: float | None = None


@KINDS.register("teaching")
class Teaching(Study):
    """The accuracy of several ways to train a model, each with the same seeds.

    One first model is trained, with the study's seed, and every teacher explains its training images; all seeds of a row that
    begins there share it and its maps, so that their spread is that of the second training alone.

    Attributes:
        data: the recipe's `data`.
        recipe: what all trainings share: keys of a recipe (see `sightline.training.Recipe`), but for name, seed and data.
        first_recipe: keys of the recipe that the first model changes; null where no row needs one.
        teachers: their explainers, by the name that rows give.
        rows: the ways of training.
        seeds: how many; they count from the study's seed.
        split: on which the accuracy is measured.
    """

    kind: Literal["teaching"]
    data: Values
    recipe: Values
    first_recipe: Values | None = None
    teachers: dict[str, Teacher] = Field(default_factory=dict)
    rows: Annotated[list[Row], Field(min_length=1)]
    seeds: Positive = 5
    split: str = "test"

    @model_validator(mode="after")
    def _check(self) -> Self:
        labels = [row.label for row in self.rows]
        check_labels("rows", labels)
        for row in self.rows:
            if row.maps is not None and row.maps not in self.teachers:
                raise ValueError(f"rows: {row.label} learns from the maps {row.maps!r}, which is none of the teachers")
            for other in row.against:
                if other not in labels:
                    raise ValueError(f"rows: {row.label} is compared with {other!r}, which is none of the rows")
            self.recipe_of(row, self.seed, Path())
        if (self.teachers or any(row.first for row in self.rows)) and self.first_recipe is None:
            raise ValueError("first_recipe is null, and teachers or rows need a first model")
        if self.recipe_of(None, self.seed, Path()).image_size is None:
            raise ValueError("recipe.image_size is null; expected the side of the images in pixels")
        for teacher in self.teachers.values():
            create_explainer(teacher.name, **teacher.options)
        return self

    def parts(self) -> list[str]:
        """The first model, the maps of each teacher, and then all rows seed by seed."""
        shared = [] if self.first_recipe is None else [FIRST, *(f"maps {name}" for name in self.teachers)]
        numbers = range(self.seeds)
        return shared + [f"{row.label}/{n}" for n in numbers for row in self.rows if n < (row.seeds or self.seeds)]

    def scaled(self, scale: float) -> Self:
        """Fewer seeds."""
        return self.model_copy(update={"seeds": scale_count(self.seeds, scale)})

    def recipe_of(self, row: Row | None, seed: int, folder: Path) -> Recipe:
        """The recipe of one training of a study in a folder; None = of the first model."""
        values: Values = {**self.recipe, "data": self.data, "seed": seed}
        values |= (self.first_recipe or {}) if row is None else row.recipe
        values["name"] = FIRST if row is None else _file_name(row.label)
        if row is not None and row.first:
            given = values.get("model")
            model = {"name": given} if isinstance(given, str) else given or {}
            values["model"] = {**model, "weights": str(self.chosen(self.run_of(None, self.seed, folder)))}
        if row is not None and row.maps is not None:
            values["maps"] = str(folder / "maps" / row.maps)
        return Recipe(**values)

    def run_of(self, row: Row | None, seed: int, folder: Path) -> Run:
        """The run of one training."""
        return Run(folder / "runs" / (FIRST if row is None else f"{_file_name(row.label)}-seed{seed}"))

    def chosen(self, run: Run) -> Path:
        """The weights that a run is judged by."""
        return run.last if self.recipe.get("save_best") is None else run.best

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Open the data."""
        return _Worker(self, device, folder).work

    def table(self, done: Done) -> list[Values]:
        """A row a training."""
        return [{"training": name, **part.values} for name, part in done.items() if "accuracy" in part.values]

    def summary(self, done: Done) -> str:
        """Mean and spread of the accuracy, the differences between rows, and what the maps took."""
        lines = []
        if FIRST in done:
            first = done[FIRST].values
            lines.append(["The first model", _spread([100 * first["accuracy"]]), "", "1", *_costs([first])])
        for row in self.rows:
            found = list(self._of(row, done).values())
            paper = "" if row.paper_values is None else f"{row.paper_values:.2f}"
            text = _spread([100 * values["accuracy"] for values in found])
            lines.append([row.label, text, paper, str(len(found)), *_costs(found)])
        sections = [
            f"Accuracy in per cent on the split {self.split!r}: the mean over seeds and, in parentheses, their standard "
            "deviation.",
            markdown(
                ["Training", "Accuracy", "The paper's", "Seeds", "Parameters", "Epochs", "Seconds a training"], lines
            ),
        ]
        if differences := self._differences(done):
            sections.append(
                "Differences in percentage points, seed by seed: their mean and, in parentheses, standard deviation."
            )
            sections.append(markdown(["Difference", "Points", "Seeds above zero"], differences))
        for name, teacher in self.teachers.items():
            if part := done.get(f"maps {name}"):
                sections.append(
                    f"Maps `{name}` ({teacher.name}) of {part.values['maps']} training images: {part.values['made']} of them "
                    f"made by this part, in {part.values['seconds']:.0f} s; the others were there."
                )
        return "\n\n".join(sections)

    def _of(self, row: Row, done: Done) -> dict[int, Values]:
        """The finished trainings of a row, by number."""
        return {n: done[name].values for n in range(self.seeds) if (name := f"{row.label}/{n}") in done}

    def _differences(self, done: Done) -> list[list[str]]:
        found = {row.label: self._of(row, done) for row in self.rows}
        lines = []
        for row in self.rows:
            here = found[row.label]
            for other in row.against:
                there = found[other]
                points = [100 * (here[n]["accuracy"] - there[n]["accuracy"]) for n in here if n in there]
                if points:
                    above = sum(each > 0 for each in points)
                    lines.append([f"{row.label} − {other}", _spread(points, "+"), f"{above} of {len(points)}"])
        return lines


class _Worker:
    """A study's data, opened once."""

    def __init__(self, study: Teaching, device: torch.device, folder: Path) -> None:
        self.study, self.device, self.folder = study, device, folder
        recipe = study.recipe_of(None, study.seed, folder)
        assert recipe.image_size is not None  # the study has seen to it
        self.size = recipe.image_size
        try:
            self.splits = recipe.data.create()
        except SightlineError as error:
            raise SightlineError(f"{study.called} needs images, and {error}: give data.KEY=VALUE") from error
        self.judged = self.splits[study.split]

    @cached_property
    def batches(self) -> list[Batch]:
        """The images that all trainings are judged on, kept in memory."""
        return list(create_loader(self.judged, size=self.size, batch_size=250, train=False))

    def work(self, part: str) -> Part:
        """Train a row with a seed, or make what rows share."""
        if part == FIRST:
            return self.train(None, self.study.seed)
        if part.startswith("maps "):
            return self.explain(part.removeprefix("maps "))
        label, _, number = part.rpartition("/")
        return self.train(next(row for row in self.study.rows if row.label == label), self.study.seed + int(number))

    def train(self, row: Row | None, seed: int) -> Part:
        """Train, or go on with what an interrupted call has trained, and judge it."""
        study = self.study
        recipe = study.recipe_of(row, seed, self.folder)
        run = train(recipe, output=study.run_of(row, seed, self.folder).path, resume=True)
        loaded = load_run(run, self.device)
        model, spec = loaded.model, loaded.input_spec
        found = evaluate_model(model, self.batches, [], ["accuracy"], input_spec=spec).results[0]
        rows = run.rows
        values: Values = {
            "accuracy": found.value, "low": found.low, "high": found.high, "n": found.n, "epochs": len(rows),
            "parameters": sum(parameter.numel() for parameter in model.parameters()), "seconds": float(rows[-1]["seconds"]),
        }  # fmt: skip
        if (watch := recipe.save_best) is not None:
            pick = max if watch.mode == "max" else min
            best = pick(rows, key=lambda each: float(each[watch.metric] or "nan"))
            values |= {"selected_epoch": int(best["epoch"]), watch.metric: float(best[watch.metric])}
        return Part(values)

    def explain(self, name: str) -> Part:
        """Make a teacher's maps, or the rest of them."""
        study, teacher = self.study, self.study.teachers[name]
        first = load_run(study.run_of(None, study.seed, self.folder), self.device)
        path, images = self.folder / "maps" / name, self.splits["train"]
        before = int(MapStore(path).finished.sum()) if (path / "zarr.json").is_file() else 0
        start = time.perf_counter()
        compute_maps(
            first.model, images, path, teacher.name, options=teacher.options, targets="label", layer=first.layer,
            input_spec=first.input_spec, dtype="float16", progress=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return Part({"maps": len(images), "made": len(images) - before, "seconds": seconds})


def _spread(values: list[float], sign: str = "-") -> str:
    """The mean and, of several values, the standard deviation."""
    if not values:
        return "…"
    return f"{fmean(values):{sign}.2f}" + (f" ({stdev(values):.2f})" if len(values) > 1 else "")


def _costs(found: list[Values]) -> list[str]:
    """Parameters, epochs and seconds of trainings."""
    if not found:
        return ["", "", ""]
    return [f"{found[0]['parameters']:,}", f"{found[0]['epochs']}", f"{fmean(each['seconds'] for each in found):.0f}"]


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label).strip("-").lower()
