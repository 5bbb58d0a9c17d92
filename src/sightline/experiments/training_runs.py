"""Tables of trained runs: a recipe, variants that change some of its keys, and seeds."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from matplotlib.figure import Figure
from pydantic import BeforeValidator, Field, model_validator

from sightline._core.strict import Count, Seeds, StrictModel
from sightline.experiments.columns import Column, check_columns, evaluation_keys
from sightline.experiments.outputs import AnyOutput, FinishedRuns, Output
from sightline.experiments.outputs.column_table import ColumnTable
from sightline.experiments.steps import AnyStep, Step, StepContext
from sightline.experiments.steps.search import Search
from sightline.runs import Recipe, Run, read_recipe
from sightline.studies.recipes import Keys, RecipeStudy, file_name, overrides
from sightline.studies.study import KINDS, Done, Part, Study, check_labels, scale_count
from sightline.studies.tables import PaperValue
from sightline.training import train
from sightline.training.build import check_guides

GROWING = ("variants", "grid", "seeds", "columns", "paper_values")  # keys that may gain entries in a finished study


class Variant(StrictModel):
    """One row of the table: what the recipe changes.

    Attributes:
        label: what the table calls it.
        keys: recipe keys, dotted, with their values.
        uses: the steps whose results it uses, by label.
        seeds: how many of the study's seeds it gets, the first ones; null = all; 0 = a row of the paper's values alone.
        columns: what its runs are evaluated for; null = the study's columns.
    """

    label: str
    keys: Keys = Field(default_factory=dict)
    uses: list[str] = Field(default_factory=list)
    seeds: Count | None = None
    columns: list[Column] | None = None


def _variant(value: Any) -> Any:
    """Complete a variant: a guide's name alone is also its label."""
    return {"label": value, "keys": {"guide": value}} if isinstance(value, str) else value


@KINDS.register("training_runs")
class TrainingRuns(RecipeStudy):
    """Variants x seeds, trained and measured.

    Every run is an ordinary run folder, under `runs/` in the study's. A run that was killed resumes from its checkpoint.
    Variants, seeds and columns can be added to a study that is finished: no run is trained again, and each is evaluated for
    new columns.

    Attributes:
        steps: what is made once before the runs (see `sightline.experiments.steps`), for each combination of the grid.
        search: whether steps that search recipe keys are done; without it they are left out.
        variants: what is compared, each with the first.
        grid: further axes, such as datasets and models; every variant is trained for each combination of theirs.
        seeds: of the runs; each is `seed` of the recipe.
        columns: `split/metric`, or `split/metric@explainer` for a metric of maps. The recipe's key `evaluation` follows from
            them.
        outputs: what else is measured and drawn (see `sightline.experiments.outputs`).
        scaled_keys: as of every recipe; `seeds` among them takes fewer seeds.
        paper_values: row -> column -> the paper's value, or its mean and standard deviation; a row is called by its labels,
            `A, B, variant`.
    """

    independent_runs: ClassVar[bool] = True

    kind: Literal["training_runs"]
    steps: list[AnyStep] = Field(default_factory=list)
    search: bool = False
    variants: Annotated[list[Annotated[Variant, BeforeValidator(_variant)]], Field(min_length=1)]
    grid: list[Annotated[list[Variant], Field(min_length=1)]] = Field(default_factory=list)
    seeds: Seeds
    columns: list[Column] = Field(default_factory=lambda: ["test/accuracy"])
    outputs: list[AnyOutput] = Field(default_factory=list)
    paper_values: dict[str, dict[str, PaperValue]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, axis in (("variants", self.variants), *((f"grid.{n}", axis) for n, axis in enumerate(self.grid))):
            check_labels(key, [variant.label for variant in axis])
        check_labels("steps", [step.label for step in self.steps])
        if not self.columns and not self.outputs:
            raise ValueError("columns: is empty, and there are no outputs either; name a column, such as test/accuracy")
        check_columns(self.columns)
        for row in self.rows:
            if further := sorted(set(row.columns or ()) - set(self.columns)):
                raise ValueError(f"columns: {row.label} has {further[0]!r}, which is none of the study's columns")
        for output in self.outputs:
            output.check(self.columns, [row.label for row in self.rows])
        self._check_steps()
        if unknown := set(self.paper_values) - {row.label for row in self.rows}:
            raise ValueError(f"paper_values: there is no row {sorted(unknown)[0]!r}")
        return self

    def _check_steps(self) -> None:
        before: dict[str, Step] = {}
        for step in self.steps:
            keys: Keys = {}
            for row in self.rows:
                keys |= row.keys if step.label in row.uses else {}
            step.check(before, keys)
            if missing := [label for label in step.needs if label not in before]:
                raise ValueError(
                    f"steps: {step.label} uses {missing[0]!r}, which is none of the steps before it; name an earlier step"
                )
            before[step.label] = step
        for row in self.rows:
            if missing := [label for label in row.uses if label not in before]:
                raise ValueError(
                    f"variants: {row.label} uses {missing[0]!r}, which is none of the steps; name a step of the study"
                )
        if self.search and not any(isinstance(step, Search) for step in self.steps):
            raise ValueError(
                "search is true, and none of the steps is a search; add a step `search`, or leave --search out"
            )

    @property
    def combinations(self) -> dict[str, Keys]:
        """For every combination of the grid by its name ("" = no grid) the recipe keys that it changes."""
        found: dict[str, Keys] = {}
        for combination in product(*self.grid):
            keys: Keys = {}
            for axis in combination:
                keys |= axis.keys
            found[", ".join(axis.label for axis in combination)] = keys
        return found

    @property
    def rows(self) -> list[Variant]:
        """The variants of every combination, named by all its labels; the fewest seeds that one of them asks for."""
        found = []
        for combination in product(*self.grid, self.variants):
            limits = [variant.seeds for variant in combination if variant.seeds is not None]
            keys: Keys = {}
            for variant in combination:
                keys |= variant.keys
            label = ", ".join(variant.label for variant in combination)
            uses = list(dict.fromkeys(use for variant in combination for use in variant.uses))
            columns = next((each.columns for each in reversed(combination) if each.columns is not None), None)
            found.append(Variant(label=label, keys=keys, uses=uses, seeds=min(limits, default=None), columns=columns))
        return found

    @property
    def panels(self) -> dict[str, dict[str, str]]:
        """For every combination of the grid by its name ("" = no grid): variant -> what its row is called."""
        return {
            ", ".join(axis.label for axis in combination): {
                variant.label: ", ".join(each.label for each in (*combination, variant)) for variant in self.variants
            }
            for combination in product(*self.grid)
        }

    def parts(self) -> list[str]:
        """Return the steps of every combination, and then the runs, one seed of all variants before the next seed."""
        return [*self._made(), *self._runs()]

    def needs(self, part: str) -> list[str]:
        """Return the steps that a step or a run uses."""
        made = self._made()
        if part in made:
            combination, step = made[part]
            return [name for label in step.needs if (name := _part(combination, label)) in made]
        row = self._row(part.rpartition("/")[0])
        combination = self._combination(row.label)
        return [name for label in row.uses if (name := _part(combination, label)) in made]

    def scaled(self, scale: float) -> Self:
        """Less of what `scaled_keys` names."""
        keys = [key for key in self.scaled_keys if key != "seeds"]
        less = super(TrainingRuns, self.model_copy(update={"scaled_keys": keys})).scaled(scale)
        number = len(self.seeds) if keys == self.scaled_keys else scale_count(len(self.seeds), scale)
        return less.model_copy(update={"scaled_keys": self.scaled_keys, "seeds": self.seeds[:number]})

    def incompatibility(self, before: Study) -> str | None:
        """Return what differs; variants, seeds and columns may be added, and a variant that existed keeps its keys."""
        if isinstance(before, TrainingRuns):
            now = {row.label: row.keys for row in self.rows}
            for row in before.rows:
                if now.get(row.label) != row.keys:
                    return f"the variant {row.label!r} ({row.keys} and {now.get(row.label, 'none')})"
            before = before.model_copy(update={name: getattr(self, name) for name in GROWING})
        return super().incompatibility(before)

    def is_complete(self, name: str, part: Part) -> bool:
        """Whether a run has all that the outputs ask for."""
        if name not in self._runs():
            return True
        return all(output.is_complete(part) for output in self._outputs(self._row(name.rpartition("/")[0])))

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read every recipe and prepare the steps, so a mistake is reported before the first run."""

        def run_of(run: Run, recipe: Recipe, row: Variant) -> Part:
            return self._train(run, recipe, device, self._outputs(row))

        contexts = {name: self._context(name, keys, folder, device, run_of) for name, keys in self.combinations.items()}
        steps = {part: step.prepare(contexts[combination]) for part, (combination, step) in self._made().items()}
        for row in self.rows:
            check_guides(self.recipe_of(row, contexts[self._combination(row.label)]))

        def work(part: str) -> Part:
            if part in steps:
                return steps[part]()
            label, _, seed = part.rpartition("/")
            row = self._row(label)
            recipe = self.recipe_of(row, contexts[self._combination(label)])
            run = Run(folder / "runs" / f"{file_name(label)}-seed{seed}")
            return run_of(run, recipe.model_copy(update={"seed": int(seed)}), row)

        return work

    def recipe_of(self, row: Variant, context: StepContext | None = None) -> Recipe:
        """Return the recipe of a row; without a context, as if it used no step."""
        made: Keys = {}
        for step in self._steps:
            made |= step.keys(context) if context is not None and step.label in row.uses else {}
        return read_recipe(self.recipe, self._changes(row, row.keys | made))

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return the rows of all outputs."""
        runs = self._finished(done)
        return [row for output in self._outputs() for row in output.table(runs)]

    def summary(self, done: Done) -> str:
        """Return the steps, the outputs, and the table of columns last."""
        runs = self._finished(done)
        steps = [
            f"{combination}: {text}" if combination else text
            for part, (combination, step) in self._made().items()
            if part in done and (text := step.summary(done[part]))
        ]
        sections = [*steps, *(output.summary(runs) for output in self.outputs)]
        if self.columns:
            sections += ["## What the runs are worth"] if self.outputs else []
            sections.append(self._outputs()[0].summary(runs))
        return "\n\n".join(sections)

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw the plots of all outputs."""
        runs = self._finished(done)
        return {name: figure for output in self._outputs() for name, figure in output.figures(runs).items()}

    def _outputs(self, row: Variant | None = None) -> list[Output]:
        """All outputs, or those of a row; the table of columns is the first one."""
        columns = self.columns if row is None else self._columns(row)
        return [*([ColumnTable(columns=columns)] if columns else []), *self.outputs]

    def _columns(self, row: Variant) -> list[str]:
        """Return the columns for which the runs of a row are evaluated."""
        return self.columns if row.columns is None else row.columns

    def _row(self, label: str) -> Variant:
        """Return the row with this name."""
        return next(row for row in self.rows if row.label == label)

    def _runs(self) -> list[str]:
        return [
            f"{row.label}/{seed}"
            for place, seed in enumerate(self.seeds)
            for row in self.rows
            if row.seeds is None or place < row.seeds
        ]

    @property
    def _steps(self) -> list[Step]:
        """The steps that are done."""
        return [step for step in self.steps if self.search or not isinstance(step, Search)]

    def _made(self) -> dict[str, tuple[str, Step]]:
        """For every part that is a step: the combination that it is of, and the step."""
        return {_part(name, step.label): (name, step) for name in self.combinations for step in self._steps}

    def _combination(self, row: str) -> str:
        """Return the combination of the grid that a row belongs to."""
        return next(name for name, rows in self.panels.items() if row in rows.values())

    def _context(
        self, name: str, keys: Keys, folder: Path, device: torch.device, run_of: Callable[[Run, Recipe, Variant], Part]
    ) -> StepContext:
        """Return the context of a combination's steps: without a grid the study's folder, else a folder in it."""
        shared = read_recipe(self.recipe, [*overrides({"seed": self.seed}), *overrides(self.keys), *overrides(keys)])
        place = folder / file_name(name) if name else folder

        def first(label: str, changes: Keys) -> Part:
            row = self._row(next(iter(self.panels[name].values()))).model_copy(update={"label": label})
            recipe = read_recipe(self.recipe, self._changes(row, {"seed": self.seed} | keys | changes))
            return run_of(context.run(label), recipe, row)

        context = StepContext(shared, place, device, first, {step.label: step for step in self._steps})
        return context

    def _finished(self, done: Done) -> FinishedRuns:
        made = {name: done[name] for name in self._made() if name in done}
        others = {name: part for name, part in done.items() if name not in made}
        return FinishedRuns(self.panels, self._runs(), others, made, self.paper_values)

    def _changes(self, row: Variant, keys: Keys) -> list[str]:
        """Return the overrides that a run shares with all others, and then its own."""
        shared = {"name": file_name(row.label)} | evaluation_keys(self._columns(row)) | self.keys
        return overrides(shared) + overrides(keys)

    def _train(self, run: Run, recipe: Recipe, device: torch.device, outputs: list[Output]) -> Part:
        """Train a run, or resume it, and measure it for every output."""
        watchers = [watcher for output in outputs if (watcher := output.watch(run)) is not None]

        def watch(more: bool) -> None:
            for watcher in watchers:
                watcher(more)

        train(recipe, output=run.path, resume=True, device=device, watch=watch if watchers else None)
        values: dict[str, Any] = {}
        tensors: dict[str, torch.Tensor] = {}
        for output in outputs:
            found = output.measure(run, device)
            values |= found.values
            tensors |= found.tensors
        return Part(values | {"seconds": float(run.rows[-1]["seconds"])}, tensors)


def _part(combination: str, step: str) -> str:
    """Return the name of the part that makes a step for a combination of the grid."""
    return f"{combination}, {step}" if combination else step
