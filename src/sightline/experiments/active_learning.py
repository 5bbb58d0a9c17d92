"""Learning from few labels: variants that choose what to label next, round after round."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import BeforeValidator, Field, model_validator

from sightline._core.seeding import generator
from sightline._core.strict import Positive, Real, Seeds
from sightline.acquisition import QUERY_STRATEGIES, create_query_strategy, select_from_run
from sightline.datasets.derived.subset import Listed, listed, read_list, write_list
from sightline.errors import SightlineError
from sightline.experiments.columns import (
    Column,
    check_columns,
    evaluate_columns,
    evaluation_keys,
    heading,
    split_column,
)
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import COLORS, new_axes, tidy
from sightline.runs import Run, read_recipe
from sightline.statistics.intervals import over_seeds
from sightline.studies.recipes import Keys, file_name, overrides
from sightline.studies.study import KINDS, Done, Method, Part, Study, check_labels, labelled, scale_count
from sightline.studies.tables import mean_and_spread
from sightline.training import train

SHARED = ("data", "name", "seed", "train_samples", "train_fraction")  # keys that no variant can change


class StrategyVariant(Method):
    """One way to spend labels.

    Attributes:
        label: what the table calls it.
        name: of a query strategy.
        options: of the strategy.
        keys: recipe keys that it changes, dotted, with their values.
    """

    keys: Keys = Field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it takes all labels at once."""
        return bool(QUERY_STRATEGIES[self.name].capabilities.get("whole"))


@KINDS.register("active_learning")
class ActiveLearning(Study):
    """Accuracy and interpretability by how many training images have a label, and by who chose these.

    In round 0 a share of the training images is drawn, the same for all variants of a seed. Each round trains the recipe from
    its beginning on what has been labelled, evaluates the run, and has the variant choose the next images; their labels, which
    the data has all along, are read from then on. Every run is an ordinary run folder, under `runs/` in the study's,
    and what it was trained on is the list of the same name under `samples/`.

    Attributes:
        recipe: a recipe that sightline ships, or a file.
        keys: recipe keys that every variant changes.
        variants: what is compared, each with the first. Variants with the same keys share their run of round 0.
        initial_fraction: share of the training images that have a label in round 0.
        step_fraction: share that each round adds.
        rounds: how many, round 0 included.
        seeds: of the runs, the first images and all that is drawn.
        columns: `split/metric`, or `split/metric@explainer` for a metric of maps.
    """

    kind: Literal["active_learning"]
    recipe: str
    keys: Keys = Field(default_factory=dict)
    variants: Annotated[list[Annotated[StrategyVariant, BeforeValidator(labelled)]], Field(min_length=1)]
    initial_fraction: Annotated[Real, Field(gt=0, le=1)] = 0.3
    step_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    rounds: Positive = 7
    seeds: Seeds
    columns: Annotated[list[Column], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("variants", [variant.label for variant in self.variants])
        if self.variants[0].whole:
            raise ValueError(
                f"variants: the others are compared with {self.variants[0].label}, which chooses nothing; put it later"
            )
        for variant in self.variants:
            create_query_strategy(variant.name, **variant.options)
            if taken := [key for key in variant.keys if key.partition(".")[0] in SHARED]:
                raise ValueError(f"variants: {variant.label} changes {taken[0]!r}, which all variants share")
        if taken := [key for key in self.keys if key in SHARED[1:]]:
            raise ValueError(f"keys: {taken[0]!r} is set for every run")
        check_columns(self.columns)
        if self.share(self.rounds - 1) > 1:
            raise ValueError(
                f"rounds is {self.rounds}: from {self.initial_fraction:g} by {self.step_fraction:g} that is more than all "
                "training images; lower one of the three"
            )
        return self

    def parts(self) -> list[str]:
        """One run each, a seed of all variants before the next seed; a run that several variants share is the first one's."""
        return list(
            dict.fromkeys(
                self._part(variant, seed, number)
                for seed in self.seeds
                for variant in self.variants
                for number in range(1 if variant.whole else self.rounds)
            )
        )

    def scaled(self, scale: float) -> Self:
        """Fewer seeds."""
        return self.model_copy(update={"seeds": self.seeds[: scale_count(len(self.seeds), scale)]})

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read every variant's recipe and open the data, so a mistake is met before the first run."""
        return _Worker(self, device, folder).work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per variant, seed, round and column."""
        return [
            {
                "variant": variant.label, "seed": seed, "round": number,
                **{key: kept.values[key] for key in ("labels", "share", "pseudo_labels", "right_pseudo_labels")},
                "column": column, **figure,
            }
            for variant in self.variants
            for seed in self.seeds
            for number in range(1 if variant.whole else self.rounds)
            if (kept := done.get(self._part(variant, seed, number))) is not None
            for column, figure in kept.values["figures"].items()
        ]  # fmt: skip

    def summary(self, done: Done) -> str:
        """Return for each column a table variants x shares, with the mean over the rounds that a variant chose for."""
        first = self.variants[0]
        shares = [f"{100 * self.share(number):.4g} %" for number in range(self.rounds)]
        text = [
            "Mean ± standard deviation over seeds, by the share of the training images that have a label. Arrows say which way "
            "is better. *Chosen* is the mean over all rounds but the first, whose images are drawn; the last column has its "
            f"difference from {first.label} with the 95 % interval (Student's t over paired seeds, not corrected for their "
            "number)."
        ]
        if set(self.parts()) <= set(done):
            text.append("![figures by the share of labels](figure.png)")
        for column in self.columns:
            rows = []
            for variant in self.variants:
                values = [
                    mean_and_spread(list(self._values(variant, number, column, done).values()))
                    for number in range(self.rounds)
                ]
                cells = [""] * self.rounds + values[:1] if variant.whole else [*values, ""]
                chosen = list(self._chosen(variant, column, done).values())
                rows.append(
                    [
                        variant.label,
                        *cells,
                        mean_and_spread(chosen) if chosen else "",
                        self._against(variant, column, done),
                    ]
                )
            text.append(markdown([f"**{heading(column)}**", *shares, "all", "Chosen", f"− {first.label}"], rows))
        if pseudo := list(self._pseudo_labeled(done)):
            text.append("\n".join(["Images that were learned from by a pseudo-label, in addition:", "", *pseudo]))
        text.append(
            "What each run was trained on is listed under `samples/`, with the round and the score by which it was chosen."
        )
        return "\n\n".join(text)

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw one panel per column: the mean of each variant by the share of labels, with its standard deviation."""
        figure, (panels,) = new_axes(3.6 * len(self.columns), 3.6, columns=len(self.columns))
        for axes, column in zip(panels, self.columns):
            for variant, color in zip(self.variants, COLORS * len(self.variants)):
                self._draw(axes, variant, color, column, done)
            tidy(axes, title=heading(column).replace(" (", "\n("), x_label="training images with a label, %", ticks=8)
            axes.grid(color="#e2e8f0", lw=0.6)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=8, frameon=False)
        return {"figure.png": figure}

    def _draw(self, axes: Axes, variant: StrategyVariant, color: str, column: str, done: Done) -> None:
        numbers = [0] if variant.whole else range(self.rounds)
        values = [list(self._values(variant, number, column, done).values()) for number in numbers]
        if not all(values):
            return
        means = [fmean(each) for each in values]
        spreads = [stdev(each) if len(each) > 1 else 0.0 for each in values]
        shares = [100 * self.share(number) for number in range(self.rounds)]
        if variant.whole:
            axes.axhline(means[0], color=color, lw=1, ls="--", label=variant.label)
            return
        low, high = ([mean + sign * spread for mean, spread in zip(means, spreads)] for sign in (-1, 1))
        axes.fill_between(shares, low, high, color=color, alpha=0.1, lw=0)
        axes.plot(shares, means, "o-", color=color, lw=1.4, ms=3, label=variant.label)

    def holder(self, variant: StrategyVariant, number: int) -> StrategyVariant:
        """Return the variant that holds a variant's run: in round 0 the first one with the same keys, else itself."""
        if number or variant.whole:
            return variant
        return next(each for each in self.variants if each.keys == variant.keys and not each.whole)

    def share(self, number: int) -> float:
        """Return the share of the training images that have a label in a round."""
        return round(self.initial_fraction + number * self.step_fraction, 9)

    def _part(self, variant: StrategyVariant, seed: int, number: int) -> str:
        return f"{self.holder(variant, number).label}/{seed}/{number}"

    def _values(self, variant: StrategyVariant, number: int, column: str, done: Done) -> dict[int, float]:
        """Return the column's value by seed, where it is defined."""
        found = {}
        for seed in self.seeds:
            kept = done.get(self._part(variant, seed, number))
            figure = None if kept is None else kept.values["figures"].get(column)
            if figure is not None and not math.isnan(figure["value"]):
                found[seed] = figure["value"]
        return found

    def _chosen(self, variant: StrategyVariant, column: str, done: Done) -> dict[int, float]:
        """Return the mean by seed over all rounds except the first, where all of them are done."""
        if variant.whole:
            return {}
        rounds = [self._values(variant, number, column, done) for number in range(1, self.rounds)]
        return {
            seed: fmean(each[seed] for each in rounds)
            for seed in self.seeds
            if rounds and all(seed in each for each in rounds)
        }

    def _against(self, variant: StrategyVariant, column: str, done: Done) -> str:
        """Return the difference from the first variant, with its interval."""
        here, there = self._chosen(variant, column, done), self._chosen(self.variants[0], column, done)
        seeds = [seed for seed in here if seed in there]
        if variant is self.variants[0] or not seeds:
            return ""
        values, against = [here[seed] for seed in seeds], [there[seed] for seed in seeds]
        interval = over_seeds(values, against, paired=True)
        span = "" if interval is None else f" ({interval.low:+.3f} to {interval.high:+.3f})"
        return f"{fmean(values) - fmean(against):+.3f}{span}"

    def _pseudo_labeled(self, done: Done) -> list[str]:
        found = []
        for variant in self.variants:
            kept = [
                done[name].values
                for seed in self.seeds
                for n in range(1, self.rounds)
                if (name := self._part(variant, seed, n)) in done
            ]
            if variant.whole or not any(values["pseudo_labels"] for values in kept):
                continue
            pseudo_labels, right = (
                sum(values[key] for values in kept) for key in ("pseudo_labels", "right_pseudo_labels")
            )
            found.append(
                f"- {variant.label}: {pseudo_labels / len(kept):.1f} a run, {right / pseudo_labels:.1%} of them right"
            )
        return found


class _Worker:
    """A study's recipes and data, opened once."""

    def __init__(self, study: ActiveLearning, device: torch.device, folder: Path) -> None:
        self.study, self.device, self.folder = study, device, folder.resolve()
        self.recipes = {
            variant.label: read_recipe(
                study.recipe,
                overrides(
                    {"name": file_name(variant.label)} | evaluation_keys(study.columns) | study.keys | variant.keys
                ),
            )
            for variant in study.variants
        }
        recipe = self.recipes[study.variants[0].label]
        if recipe.train_samples is not None or recipe.train_fraction < 1:
            raise SightlineError(
                "train_samples and train_fraction are the loop's own; give a recipe of all training images"
            )
        splits = recipe.data.create()
        for column in study.columns:
            splits[split_column(column)[0]]  # rejected here, before there is a folder
        self.images = splits["train"]

    def work(self, part: str) -> Part:
        """Train what a part's round has labels for, and judge it."""
        label, seed, number = part.rsplit("/", 2)
        variant = next(each for each in self.study.variants if each.label == label)
        name = self._name(variant, int(seed), int(number))
        file = self.folder / "samples" / f"{name}.csv"
        if not file.is_file():
            write_list(file, self._list(variant, int(seed), int(number)))
        changes: Keys = {"seed": int(seed), "train_samples": str(file)}
        run = train(
            self.recipes[label], overrides(changes), output=self.folder / "runs" / name, resume=True, device=self.device
        )
        figures = evaluate_columns(run, self.study.columns, self.device)
        pseudo_labels = listed(self.images, file).pseudo_labels
        labels = len(read_list(file)) - len(pseudo_labels)
        return Part(
            {
                "figures": figures,
                "labels": labels,
                "share": labels / len(self.images),
                "pseudo_labels": len(pseudo_labels),
                "right_pseudo_labels": sum(int(self.images.labels[at]) == given for at, given in pseudo_labels.items()),
                "seconds": float(run.rows[-1]["seconds"]),
            }
        )

    def _list(self, variant: StrategyVariant, seed: int, number: int) -> list[Listed]:
        """Return the list that a round is trained on: the previous round's labels, and what the variant chose by its model."""
        if number == 0:
            order = torch.randperm(len(self.images), generator=generator(seed, "first labels")).tolist()
            count = len(order) if variant.whole else self._count(0)
            return [Listed(place, self.images.path(place)) for place in sorted(order[:count])]
        before = self._name(variant, seed, number - 1)
        known = [line for line in read_list(self.folder / "samples" / f"{before}.csv") if not line.pseudo_label]
        strategy = create_query_strategy(variant.name, **variant.options)
        run = Run(self.folder / "runs" / before)
        return known + select_from_run(run, strategy, self._count(number) - len(known), device=self.device)

    def _name(self, variant: StrategyVariant, seed: int, number: int) -> str:
        return f"{file_name(self.study.holder(variant, number).label)}-seed{seed}-round{number}"

    def _count(self, number: int) -> int:
        return max(1, round(self.study.share(number) * len(self.images)))
