"""Tables of trained runs: a recipe, variants that change some of its keys, and seeds."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.figure import Figure
from pydantic import BeforeValidator, Field, model_validator

from sightline._core.strict import Count, Positive, Section
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.evaluation.statistics import Interval, over_seeds
from sightline.metrics import METRICS
from sightline.reporting.formatting import title
from sightline.reporting.markdown import markdown
from sightline.studies.study import KINDS, Done, Part, Study, check_labels, scale_count
from sightline.training import Run, read_recipe, train
from sightline.training.build import check_guides
from sightline.training.run import EpochEnd

Keys = dict[str, Any]
"""Recipe keys, dotted as on the command line, with their values."""


class Variant(Section):
    """One row of the table: what the recipe changes.

    Attributes:
        label: what the table calls it.
        keys: recipe keys, dotted, with their values.
        seeds: how many of the study's seeds it gets, the first ones; null takes all.
    """

    label: str
    keys: Keys = Field(default_factory=dict)
    seeds: Positive | None = None


def _variant(value: Any) -> Any:
    """A guide's name alone is its label too."""
    return {"label": value, "keys": {"guide": value}} if isinstance(value, str) else value


@KINDS.register("training_runs")
class TrainingRuns(Study):
    """Variants x seeds, trained and evaluated: the mean and the standard deviation over seeds, beside the paper's.

    Every run is an ordinary run folder, under `runs/` in the study's. A run that was killed goes on from its checkpoint.
    Variants, seeds and columns can be added to a study that is finished: no run is trained again, and each is judged by new
    columns.

    Attributes:
        recipe: a recipe that sightline ships, or a file.
        keys: recipe keys that every variant changes.
        variants: what is compared, each with the first.
        grid: further axes, such as data sets and models; every variant is trained for each combination of theirs.
        seeds: of the runs; each is `seed` of the recipe.
        columns: `split/metric`, or `split/metric@explainer` for a metric of maps. The recipe's key `evaluation` follows from
            them.
        scaled_keys: recipe keys, whole numbers or shares, that `--scale` takes a share of, such as `data.per_class`; empty
            takes `train_fraction`.
        paper_values: row -> column -> the paper's figure; a row is called by its labels, `A, B, variant`.
    """

    kind: Literal["training_runs"]
    recipe: str
    keys: Keys = Field(default_factory=dict)
    variants: Annotated[list[Annotated[Variant, BeforeValidator(_variant)]], Field(min_length=1)]
    grid: list[Annotated[list[Variant], Field(min_length=1)]] = Field(default_factory=list)
    seeds: Annotated[list[Count], Field(min_length=1)]
    columns: Annotated[
        list[Annotated[str, Field(pattern=r"^\w+/[\w.+-]+(@[\w.+-]+)?$")]],
        Field(min_length=1, default_factory=lambda: ["test/accuracy"]),
    ]
    scaled_keys: list[str] = Field(default_factory=list)
    paper_values: dict[str, dict[str, float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, axis in (("variants", self.variants), *((f"grid.{n}", axis) for n, axis in enumerate(self.grid))):
            check_labels(key, [variant.label for variant in axis])
        for column in self.columns:
            METRICS[split_column(column)[1]]
        if unknown := set(self.paper_values) - {row.label for row in self.rows}:
            raise ValueError(f"paper_values: there is no row {sorted(unknown)[0]!r}")
        return self

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
            found.append(Variant(label=label, keys=keys, seeds=min(limits, default=None)))
        return found

    @property
    def panels(self) -> dict[str, dict[str, str]]:
        """For every combination of the axes by its name ("" = there are none): variant -> what its row is called."""
        return {
            ", ".join(axis.label for axis in combination): {
                variant.label: ", ".join(each.label for each in (*combination, variant)) for variant in self.variants
            }
            for combination in product(*self.grid)
        }

    def parts(self) -> list[str]:
        """One run each, a seed of all variants before the next seed."""
        return [
            f"{variant.label}/{seed}"
            for place, seed in enumerate(self.seeds)
            for variant in self.rows
            if variant.seeds is None or place < variant.seeds
        ]

    def scaled(self, scale: float) -> Self:
        """Less of what `scaled_keys` names; the seeds stay."""
        if scale == 1:
            return self
        less = scale_keys(self.recipe, self.keys, self.scaled_keys or ["train_fraction"], scale)
        return self.model_copy(update={"keys": less})

    def incompatibility(self, before: Study) -> str | None:
        """A study grows by variants, seeds and columns; a variant that was there keeps its keys, and stays."""
        if isinstance(before, type(self)):
            now = {row.label: row.keys for row in self.rows}
            for row in before.rows:
                if now.get(row.label) != row.keys:
                    return f"the variant {row.label!r} ({row.keys} and {now.get(row.label, 'none')})"
            growing = ("variants", "grid", "seeds", "columns", "paper_values")
            before = before.model_copy(update={name: getattr(self, name) for name in growing})
        return super().incompatibility(before)

    def is_complete(self, name: str, part: Part) -> bool:
        """Whether the run was judged by every column."""
        return set(self.columns) <= set(part.values["columns"])

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read every variant's recipe, so that a wrong key or guide is met before the first run."""
        recipes = {variant.label: read_recipe(self.recipe, self._changes(variant)) for variant in self.rows}
        for recipe in recipes.values():
            check_guides(recipe)

        def work(part: str) -> Part:
            label, _, seed = part.rpartition("/")
            run = Run(folder / "runs" / f"{recipes[label].name}-seed{seed}")
            train(recipes[label], [f"seed={seed}"], output=run.path, resume=True, watch=self.watch(run))
            figures = judge(run, self.columns, device)
            found = self.look(run, device)
            values = {"columns": self.columns, "figures": figures, "seconds": float(run.rows[-1]["seconds"])}
            return Part(values | found.values, found.tensors)

        return work

    def watch(self, run: Run) -> EpochEnd | None:
        """What is called after every epoch of a run, which begins or goes on; for kinds that see more of a run."""
        return None

    def look(self, run: Run, device: torch.device) -> Part:
        """What is found out of a finished run beside its figures; for kinds that see more of a run."""
        return Part({})

    def table(self, done: Done) -> list[dict[str, Any]]:
        """A row a variant, seed and column; every figure that was measured, also those that the report does not show."""
        return [
            {"variant": label, "seed": int(seed), "column": column, **figure}
            for part, kept in done.items()
            for label, _, seed in [part.rpartition("/")]
            for column, figure in kept.values["figures"].items()
        ]

    def summary(self, done: Done) -> str:
        """Variants x columns, and what the seeds settle against the first variant."""
        header = ["Variant", "Seeds", *(heading(column) for column in self.columns), "Seconds a run"]
        rows = []
        for variant in self.rows:
            printed = self.paper_values.get(variant.label, {})
            cells = [
                mean_and_spread(list(self._values(variant.label, column, done).values()), printed.get(column))
                for column in self.columns
            ]
            times = [kept.values["seconds"] for part, kept in done.items() if part.rpartition("/")[0] == variant.label]
            rows.append([variant.label, str(len(times)), *cells, f"{mean(times):.0f}" if times else "…"])
        sizes = {
            column.partition("/")[0]: str(figure["n"])
            for part in done.values()
            for column, figure in part.values["figures"].items()
        }
        text = [
            f"Mean ± standard deviation over seeds{'; in square brackets the paper’s figure' if self.paper_values else ''}. "
            f"Arrows say which way is better. Images: {', '.join(map(' '.join, sizes.items()))}.",
            markdown(header, rows),
        ]
        if set(self.parts()) <= set(done):
            text.append("![every run by column](figure.png)")
        if settled := list(self._settled(done)):
            text.append(
                f"Differences from {self.variants[0].label} whose 95 % interval leaves out zero (Student's t over paired "
                "seeds, not corrected for their number):\n\n" + "\n".join(f"- {line}" for line in settled)
            )
        return "\n\n".join(text)

    def figures(self, done: Done) -> dict[str, Figure]:
        """A panel a column: the mean of each row with its standard deviation, and every seed's value."""
        labels = [variant.label for variant in self.rows]
        figure = Figure(
            figsize=(2.2 + 1.9 * len(self.columns), 0.9 + 0.26 * len(labels)),
            dpi=150,
            layout="constrained",
            facecolor="white",
        )
        panels = figure.subplots(1, len(self.columns), squeeze=False, sharey=True)[0]
        for axes, column in zip(panels, self.columns):
            for place, label in enumerate(labels):
                values = list(self._values(label, column, done).values())
                axes.plot(values, [place] * len(values), "o", color="#94a3b8", ms=3)
                if values:
                    spread = stdev(values) if len(values) > 1 else 0.0
                    axes.errorbar(mean(values), place, xerr=spread, fmt="|", color="#c2410c", ms=9, lw=1.2)
            axes.set_title(heading(column).replace(" (", "\n("), fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(axis="y", color="#e2e8f0", lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_yticks(range(len(labels)), labels)
        panels[0].invert_yaxis()
        return {"figure.png": figure}

    def against_first(self, what: str, values: Mapping[str, Mapping[str, float]]) -> str:
        """Differences from the first variant of a combination, by row -> seed -> value; "" with fewer than two seeds."""
        lines = []
        for row, difference, interval, _ in self._differences(values):
            side = "" if interval.excludes_zero else ", not settled"
            lines.append(f"- {row}: {difference:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}){side}")
        if not lines:
            return ""
        return (
            f"{what}, difference from {self.variants[0].label} with its 95 % interval (Student's t over paired seeds, not "
            "corrected for their number):\n\n" + "\n".join(lines)
        )

    def _changes(self, variant: Variant) -> list[str]:
        """The overrides that make a variant's recipe of the base recipe."""
        return overrides({"name": file_name(variant.label)} | judging(self.columns) | self.keys | variant.keys)

    def _values(self, label: str, column: str, done: Done) -> dict[str, float]:
        """The column's value by seed, where it is defined."""
        found = {}
        for part, kept in done.items():
            variant, _, seed = part.rpartition("/")
            figure = kept.values["figures"].get(column)
            if variant == label and figure is not None and not math.isnan(figure["value"]):
                found[seed] = figure["value"]
        return found

    def _settled(self, done: Done) -> Iterator[str]:
        for column in self.columns:
            values = {row.label: self._values(row.label, column, done) for row in self.rows}
            for row, _, interval, seeds in self._differences(values):
                if interval.excludes_zero:
                    yield f"{row}, {heading(column)}: {interval.low:+.3f} to {interval.high:+.3f} ({seeds} seeds)"

    def _differences(self, values: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, float, Interval, int]]:
        """Compare each row with the first variant of its combination: row, difference, interval, number of seeds."""
        for labels in self.panels.values():
            first = values[next(iter(labels.values()))]
            for row in list(labels.values())[1:]:
                seeds = [seed for seed in values[row] if seed in first]
                own, other = ([some[seed] for seed in seeds] for some in (values[row], first))
                if (interval := over_seeds(own, other, paired=True)) is not None:
                    yield row, mean(own) - mean(other), interval, len(seeds)


def scale_keys(recipe: str, keys: Keys, scaled_keys: Iterable[str], scale: float) -> Keys:
    """Changes of a recipe with a share of the numbers that some of its keys have: whole ones rounded up, others as they are."""
    values = read_recipe(recipe, overrides(keys)).model_dump(mode="json")
    less: Keys = {}
    for key in scaled_keys:
        full = _value(values, key)
        if isinstance(full, bool) or not isinstance(full, int | float):
            raise SightlineError(
                f"--scale takes a share of numbers; the recipe key {key!r} in `scaled_keys` is {full!r}"
            )
        less[key] = scale_count(full, scale) if isinstance(full, int) else full * scale
    return keys | less


def judging(columns: Iterable[str]) -> Keys:
    """The recipe's key `evaluation` for columns."""
    splits, metrics, explainers = (
        list(dict.fromkeys(filter(None, parts))) for parts in zip(*(split_column(column) for column in columns))
    )
    keys: Keys = {"evaluation.splits": splits, "evaluation.metrics": metrics}
    return keys | ({"evaluation.explainers": explainers} if explainers else {})


def judge(run: Run, columns: Iterable[str], device: torch.device) -> dict[str, dict[str, float]]:
    """What columns ask of a run, and what comes along: column -> `value` and `n`. No split pays for another's metrics."""
    asked = [split_column(column) for column in columns]
    figures = {}
    for name in dict.fromkeys(split for split, _, _ in asked):
        metrics = list(dict.fromkeys(metric for split, metric, _ in asked if split == name))
        explainers = list(dict.fromkeys(explainer for split, _, explainer in asked if split == name and explainer))
        for result in evaluate(run, [name], explainers, metrics, device=device)[name].results:
            figures[f"{name}/{result.column}"] = {"value": result.value, "n": result.n}
    return figures


def overrides(keys: Keys) -> list[str]:
    """Keys as the command line gives them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def split_column(column: str) -> tuple[str, str, str]:
    """Split, metric and explainer ("" where none) of a column."""
    split, _, rest = column.partition("/")
    metric, _, explainer = rest.partition("@")
    return split, metric, explainer


def heading(column: str) -> str:
    """What a table calls a column, with an arrow that says which way is better."""
    split, metric, explainer = split_column(column)
    arrow = "↑" if METRICS[metric].capabilities["higher_is_better"] else "↓"
    return f"{title(metric)} {arrow} ({split}{f', {explainer}' if explainer else ''})"


def mean_and_spread(values: list[float], printed: float | None = None) -> str:
    """The mean over runs, their standard deviation where there are several, and the paper's figure in brackets."""
    beside = "" if printed is None else f" [{printed:.3f}]"
    if not values:
        return f"…{beside}"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}{beside}"


def _value(values: Any, key: str) -> Any:
    for step in key.split("."):
        values = values[int(step)] if isinstance(values, list) else values[step]
    return values


def file_name(label: str) -> str:
    """A label as the name of a file."""
    return "".join(c if c.isalnum() or c in ".+-" else "_" for c in label)
