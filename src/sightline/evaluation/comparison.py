"""Two groups of runs compared with each other: what was measured, how far they differ, and how sure that is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from sightline.data.splits import MAIN_TESTS
from sightline.errors import SightlineError
from sightline.evaluation.checkpoint import Conditions, evaluate_checkpoint, evaluate_on
from sightline.evaluation.run_folder import RunFolder, read_run
from sightline.evaluation.split_folder.folder import Key, SplitEvaluation
from sightline.statistics.bootstrap import Array, over_images, weighted_mean, worst_group
from sightline.statistics.intervals import Interval, over_seeds

ACCURACY = Key("accuracy", None)
WORST_GROUP = Key("worst_group_accuracy", None)
ROUNDING = 1e-6  # values are stored in float32
CHANCE = ("randomcam", "gaussian")  # maps that know nothing of the image, or nothing of the model


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: what readers call it.
        runs: sorted by seed.
    """

    label: str
    runs: list[RunFolder]

    @property
    def seeds(self) -> list[int]:
        """One a run, ascending."""
        return [run.seed for run in self.runs]

    @property
    def trained_explainers(self) -> set[str]:
        """Explainers that a guide trained on, where the recipes name them."""
        guides = (dict(_flatten(run.recipe.get("guide"))) for run in self.runs)
        return {value for guide in guides for key, value in guide.items() if key.rpartition(".")[2] == "explainer"}


@dataclass(frozen=True)
class Difference:
    """One measurement in both groups.

    Attributes:
        key: what was measured.
        higher_is_better: its direction.
        ours: one value per run of the group in question.
        theirs: one value per run of the group it is compared with.
        seeds: interval of the difference of means over seeds; None with one run a group.
        images: the same over images; None where no value is known image by image.
        chance: the value of a model that does not look at the image; None where it is not known.
    """

    key: Key
    higher_is_better: bool
    ours: list[float]
    theirs: list[float]
    seeds: Interval | None
    images: Interval | None
    chance: float | None = None

    @property
    def by_chance(self) -> bool:
        """Whether both groups are no better than a model that does not look at the image."""
        best = max(np.mean(self.ours), np.mean(self.theirs))
        return self.chance is not None and bool(best <= self.chance + ROUNDING)

    @property
    def value(self) -> float:
        """Mean of ours minus mean of theirs."""
        return float(np.mean(self.ours) - np.mean(self.theirs))

    @property
    def significant(self) -> bool:
        """Whether every interval there is excludes zero."""
        intervals = [i for i in (self.seeds, self.images) if i is not None]
        return bool(intervals) and all(i.excludes_zero for i in intervals)

    @property
    def outcome(self) -> str:
        """`better`, `worse` or `unclear`; unclear where both groups are no better than chance."""
        if not self.significant or self.by_chance:
            return "unclear"
        return "better" if (self.value > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy among the images of one group of the split, such as one class on one background."""

    name: str
    n: int
    ours: float
    theirs: float


@dataclass(frozen=True)
class SplitComparison:
    """Both groups on one split: the same images for every run."""

    split: str
    n: int
    ours: list[SplitEvaluation]
    theirs: list[SplitEvaluation]
    paired: bool
    group_names: list[str]

    @cached_property
    def differences(self) -> dict[Key, Difference]:
        """Every measurement, in the order of the evaluation."""
        return {key: self._difference(key) for key in self.ours[0].results}

    @property
    def explainers(self) -> list[str]:
        """Those that judge maps, the chance ones last."""
        names = dict.fromkeys(key.explainer for key in self.ours[0].results if key.explainer is not None)
        return sorted(names, key=lambda name: name in CHANCE)

    @property
    def metrics(self) -> list[str]:
        """Those that judge maps."""
        return list(dict.fromkeys(key.metric for key in self.ours[0].results if key.explainer is not None))

    @cached_property
    def by_group(self) -> list[GroupAccuracy]:
        """Accuracy in each group of the split, mean over runs, `theirs` worst first; empty without groups."""
        groups = self.ours[0].samples.group
        if groups is None:
            return []
        rows = []
        for group in np.unique(groups):
            members = groups == group
            ours, theirs = (
                float(np.mean([e.samples.correct[members].mean() for e in side])) for side in (self.ours, self.theirs)
            )
            name = self.group_names[group] if group < len(self.group_names) else str(group)
            rows.append(GroupAccuracy(name, int(members.sum()), ours, theirs))
        return sorted(rows, key=lambda row: row.theirs)

    def _difference(self, key: Key) -> Difference:
        ours, theirs = ([e.results[key] for e in side] for side in (self.ours, self.theirs))
        return Difference(
            key=key,
            higher_is_better=self.ours[0].higher_is_better[key],
            ours=ours,
            theirs=theirs,
            seeds=over_seeds(ours, theirs, self.paired),
            images=self._over_images.get(key),
            chance=self._chance.get(key),
        )

    @cached_property
    def _chance(self) -> dict[Key, float]:
        """The accuracy of the most frequent class as the answer to all images, and that of a guess in the worst group."""
        counts = np.unique(self.ours[0].samples.label, return_counts=True)[1]
        return {ACCURACY: float(counts.max() / counts.sum()), WORST_GROUP: 1 / len(counts)} if len(counts) > 1 else {}

    @cached_property
    def _over_images(self) -> dict[Key, Interval]:
        """Bootstrap over images, every run of both groups on the same draws."""
        by_image = {key: self._by_image(key) for key in self.ours[0].results}
        known = {key: values for key, values in by_image.items() if values is not None}
        groups = self.ours[0].samples.group

        def statistic(counts: Array) -> Array:
            columns = [weighted_mean(counts, values) for values in known.values()]
            if groups is not None:
                ours, theirs = (
                    np.mean([worst_group(counts, e.samples.correct, groups) for e in side], axis=0)
                    for side in (self.ours, self.theirs)
                )
                columns.append(ours - theirs)
            return np.stack(columns, axis=1)

        keys = [*known, WORST_GROUP] if groups is not None else list(known)
        return dict(zip(keys, over_images(self.n, statistic))) if keys else {}

    def _by_image(self, key: Key) -> Array | None:
        """(n,) difference of the means over runs at each image; None where the value is of the whole split only."""
        sides = []
        for evaluations in (self.ours, self.theirs):
            if key == ACCURACY:
                sides.append([e.samples.correct for e in evaluations])
            elif all(key.column in e.samples.values for e in evaluations):
                sides.append([e.samples.values[key.column] for e in evaluations])
            else:
                return None
        return np.mean(sides[0], axis=0) - np.mean(sides[1], axis=0)


@dataclass(frozen=True)
class Comparison:
    """Everything the report says in numbers.

    Attributes:
        ours: the group in question.
        theirs: the group it is compared with.
        splits: the one of the headline first.
        classes: names by class index.
    """

    ours: Group
    theirs: Group
    splits: list[SplitComparison]
    classes: list[str]

    @property
    def paired(self) -> bool:
        """Whether both groups have the same seeds."""
        return self.ours.seeds == self.theirs.seeds

    @property
    def recipe_changes(self) -> list[tuple[str, str, str]]:
        """(key, ours, theirs) of every recipe key in which the groups differ, apart from the name and the seed."""
        ours, theirs = (_settings(group) for group in (self.ours, self.theirs))
        if not all(run.recipe for group in (self.ours, self.theirs) for run in group.runs):
            return []  # the recipe of a checkpoint is not known
        keys = [k for k in dict.fromkeys([*ours, *theirs]) if k not in ("name", "seed")]
        pairs = [(k, ours.get(k, "none"), theirs.get(k, "none")) for k in keys]
        return [(k, a, b) for k, a, b in pairs if a != b]


def read_comparison(
    runs: Sequence[str | Path],
    against: Sequence[str | Path],
    folder: str | Path | None = None,
    conditions: Conditions | None = None,
) -> Comparison:
    """Read two groups of runs and make sure that they can be compared.

    Args:
        runs: run folders, or checkpoints, which are measured as the first run was.
        against: likewise.
        folder: where measurements of checkpoints are written; None = there are none.
        conditions: the model and the images of checkpoints, where all are checkpoints.

    Raises:
        SightlineError: a folder is not an evaluated run or is given twice, or the runs differ in classes, in the
            splits and measurements of their evaluations, or in the images of a split.
    """
    if not runs or not against:
        raise SightlineError("a comparison needs at least one run on either side")
    paths = [Path(p).resolve() for p in (*runs, *against)]
    for path in paths:
        if paths.count(path) > 1:
            raise SightlineError(f"the run {path} is given twice; every run belongs on one side, once")
    read_one = _reader(paths, folder, conditions)
    read = [sorted(map(read_one, side), key=lambda run: run.seed) for side in (runs, against)]
    first = read[0][0]
    for run in (*read[0], *read[1]):
        _check_comparable(run, first)
    ours, theirs = (Group(label, side) for label, side in zip(_labels(*read), read, strict=True))
    splits = [
        SplitComparison(
            split=split,
            n=first.evaluations[split].n,
            ours=[run.evaluations[split] for run in ours.runs],
            theirs=[run.evaluations[split] for run in theirs.runs],
            paired=ours.seeds == theirs.seeds,
            group_names=first.info.get("group_names", []),
        )
        for split in sorted(
            first.evaluations, key=lambda name: (name not in MAIN_TESTS, not name.startswith("test"), name)
        )
    ]
    return Comparison(ours, theirs, splits, first.info["classes"])


def _reader(
    paths: list[Path], folder: str | Path | None, conditions: Conditions | None
) -> Callable[[str | Path], RunFolder]:
    """Return what reads a run folder, or measures a checkpoint: under the conditions, else as the first run was measured."""
    trained = [path for path in paths if (path / "run.json").is_file()]
    if conditions is not None and trained:
        raise SightlineError(
            f"a model and images are named, and {trained[0]} is a run, which has its own; give either, or only checkpoints"
        )
    first_run = next((path for path in paths if not path.is_file()), None)
    if conditions is None and first_run is None:
        raise SightlineError(
            "only checkpoints are given, so nothing says how to measure them; name their model and images by --model NAME "
            "--data folder root=FOLDER (model= and data= in Python), or give at least one evaluated run"
        )
    like = None if conditions is not None or first_run is None else read_run(first_run)

    def read_one(path: str | Path) -> RunFolder:
        if like is not None and not Path(path).is_file():
            return read_run(path)
        if folder is None:
            raise SightlineError(f"{path} is a checkpoint; expected a run folder")
        place = Path(folder, str(paths.index(Path(path).resolve())))
        if conditions is not None:
            return evaluate_on(Path(path), conditions, place)
        return evaluate_checkpoint(Path(path), cast(RunFolder, like), place)

    return read_one


def _check_comparable(run: RunFolder, first: RunFolder) -> None:
    def differing(what: str, came: Any, expected: Any) -> SightlineError:
        return SightlineError(f"{run} and {first} cannot be compared: {what}: {came} against {expected}")

    if run.info["classes"] != first.info["classes"]:
        raise differing("their classes differ", run.info["classes"], first.info["classes"])
    if set(run.evaluations) != set(first.evaluations):
        raise differing("they were evaluated on different splits", sorted(run.evaluations), sorted(first.evaluations))
    for split, evaluation in run.evaluations.items():
        other = first.evaluations[split]
        if evaluation.n != other.n:
            raise differing(f"the split {split!r} has another number of images", evaluation.n, other.n)
        precisions = [each.facts.get("precision", "fp32") for each in (evaluation, other)]
        if precisions[0] != precisions[1]:
            raise differing(f"the split {split!r} was evaluated in another precision", *precisions)
        if evaluation.samples.path != other.samples.path or (evaluation.samples.label != other.samples.label).any():
            raise differing(f"the split {split!r} holds other images or labels", evaluation.folder, other.folder)
        missing = {key.column for key in set(evaluation.results) ^ set(other.results)}
        if missing:
            raise SightlineError(
                f"{run} and {first} cannot be compared: only one of them measured {', '.join(sorted(missing))} on "
                f"{split!r}; evaluate both with the same explainers and metrics"
            )


def _labels(*sides: Sequence[RunFolder]) -> list[str]:
    """Return a name for each group: the name that a group's runs share, else its guide, its path, or its side."""
    names, guides = ([{str(run.info.get(key)) for run in side} for side in sides] for key in ("name", "guide"))
    paths = [{"/".join(run.path.parts[-2:]) for run in side} for side in sides]
    for candidates in (names, guides, paths):
        if all(len(found) == 1 for found in candidates) and candidates[0] != candidates[1]:
            return [found.pop() for found in candidates]
    return ["first group", "second group"]


def _settings(group: Group) -> dict[str, str]:
    """Recipe keys, nested ones joined by dots -> the value, or the values where runs of the group differ."""
    flat = [dict(_flatten(run.recipe)) for run in group.runs]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    return {key: ", ".join(dict.fromkeys(recipe.get(key, "none") for recipe in flat)) for key in keys}


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not items:
        yield prefix, "none" if value in (None, [], {}) else str(value)
        return
    for key, inner in items:
        yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
