"""What a sweep is: a recipe, the keys of it that change, and the metric by which its trials are judged."""

from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sightline._core.strict import (
    Count,
    Positive,
    StrictDocument,
    StrictModel,
    override_text,
    parse_yaml,
    read_mapping,
)
from sightline.errors import SightlineError, unknown_name
from sightline.runs.recipe import Recipe, read_recipe, shipped_recipes
from sightline.sweeping.axes import Axis
from sightline.sweeping.front import check_front
from sightline.training.watched_values import FIGURES


class Pruning(StrictModel):
    """Ends a trial after an epoch in which its value is worse than the median of the other trials' by that epoch.

    Attributes:
        trials: that have to be finished before any is ended.
        epochs: of each trial after which none is ended.
    """

    trials: Count = 5
    epochs: Count = 1


def _recipe(given: Any) -> Any:
    return read_recipe(given) if isinstance(given, str) else given


class Sweep(StrictDocument):
    """Everything that decides a sweep.

    Attributes:
        name: of the sweep, by which a database tells it from others.
        recipe: what every trial trains: its keys, a file, or the name of a recipe that sightline ships.
        space: keys of the recipe -> a list of values, or a mapping with `low`, `high` and, if wanted, `step` or `log`.
        metric: the validation metric that is best: a `loss` is minimized, the others are maximized.
        front: a second metric, such as `energy_in_mask@gradcam`: a metric of maps, and the explainer that makes them. It is
            measured on the validation split of `metric` when a trial is done, and the results name the trials that no other
            trial beats in both metrics. It does not choose. null measures nothing.
        sampler: `grid` tries every combination, `random` draws them, `tpe` draws them where earlier trials did well
            (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization").
        trials: how many; null = the whole grid.
        pruning: null trains every trial to its end.
        seed: of what is drawn. The recipe has its own.
    """

    noun: ClassVar[str] = "sweep"

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    recipe: Annotated[Recipe, BeforeValidator(_recipe)]
    space: Annotated[dict[str, Any], Field(min_length=1)]
    metric: str = "val/accuracy"
    front: str | None = None
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: Positive | None = None
    pruning: Pruning | None = Pruning()
    seed: Count = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_metric(self.metric)
        if self.front is not None:
            check_front(self.front)
        for axis in self.axes:
            for value in axis.ends:
                try:
                    read_recipe(self.recipe, [override_text(axis.key, value)])
                except SightlineError as error:
                    whole = axis.values is None and all(float(end).is_integer() for end in axis.ends)
                    hint = "; a range of whole numbers has a step" if whole else ""
                    raise ValueError(f"space.{axis.key}: {error}{hint}") from error
            if self.sampler == "grid" and axis.values is None:
                raise ValueError(
                    f"space.{axis.key}: a grid needs a list, or a range with a step; or take the sampler tpe or random"
                )
        if self.sampler != "grid" and self.trials is None:
            raise ValueError(
                f"trials is missing: the sampler {self.sampler} does not end by itself; give the number of trials (--trials)"
            )
        return self

    @cached_property
    def axes(self) -> list[Axis]:
        """The keys that change."""
        axes = []
        for key, given in self.space.items():
            try:
                axes.append(Axis.read(key, given))
            except ValueError as error:
                raise ValueError(f"space.{key}: {error}") from error
        return axes

    @property
    def minimized(self) -> bool:
        """Whether the smallest value of the metric is the best."""
        return self.metric.endswith("/loss")

    @property
    def wanted(self) -> int:
        """How many trials there are to be."""
        if self.sampler != "grid":
            return self.trials or 0
        points = prod(len(axis.values or []) for axis in self.axes)
        return min(self.trials or points, points)

    def overrides(self, stored: dict[str, Any]) -> list[str]:
        """Return a trial's values, as a database holds them, in the form that `sightline train` takes."""
        return self.changes({axis.key: axis.value(stored[axis.key]) for axis in self.axes if axis.key in stored})

    def changes(self, values: dict[str, Any]) -> list[str]:
        """Values of the keys as `sightline train` takes them."""
        return [override_text(key, value) for key, value in values.items()]


def read_sweep(source: str | Path, changes: Sequence[str] = (), over: Sequence[str] = (), **settings: Any) -> Sweep:
    """Read a sweep from a YAML file or from the package, or over a recipe.

    Args:
        source: a sweep's YAML file, the name of a sweep that sightline ships, or a recipe as `read_recipe` takes it.
        changes: `key.sub=value` each, which every trial's recipe has.
        over: `key.sub=values` each, as in `space` and in YAML: a list, or a mapping with `low` and `high`.
        settings: further keys of the sweep; None leaves the file's, or else the default.

    Raises:
        SightlineError: names what cannot be read, the unknown key with the nearest one, or the value out of range.
    """
    values = _find(source)
    given = values.get("recipe")
    if isinstance(given, str | Path | dict):
        values["recipe"] = read_recipe(Recipe(**given) if isinstance(given, dict) else given, changes)
        values.setdefault("name", values["recipe"].name)
    space = values.get("space") or {}
    named: set[str] = set()
    for each in over:
        key, equals, text = each.partition("=")
        if not equals or not key:
            raise SightlineError(
                f"over {each!r} is not of the form key.sub=[value, ...] or key.sub={{low: ..., high: ...}}"
            )
        if key in named:
            raise SightlineError(f"over names {key} twice; give all of its values at once")
        named.add(key)
        space[key] = parse_yaml(text, f"over {each!r}")
    if not space:
        raise SightlineError(
            "sweep: no key changes; say which by --over 'batch_size=[16, 32]', or by `space:` in a file"
        )
    return Sweep(**{**values, "space": space, **{key: value for key, value in settings.items() if value is not None}})


def shipped_sweeps() -> dict[str, Path]:
    """Return the sweeps in the package, by name."""
    folder = Path(str(files("sightline"))) / "recipes" / "sweep"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _find(source: str | Path) -> dict[str, Any]:
    """Return the keys of a sweep; of a recipe, the one key `recipe`."""
    shipped = shipped_sweeps()
    path = shipped.get(str(source), Path(source))
    if path.is_file():
        values = read_mapping(path)
        return values if "space" in values else {"recipe": source}
    if len(path.parts) == 1 and not path.suffix and str(source) not in shipped_recipes():
        raise unknown_name("recipe or sweep", str(source), [*shipped_recipes(), *shipped])
    return {"recipe": source}


def _check_metric(metric: str) -> None:
    split, _, name = metric.partition("/")
    if not split.startswith("val"):
        raise ValueError(
            f"metric is {metric!r}; a sweep uses a metric of a validation split, val/... After a test split has chosen between "
            "trials, its values no longer estimate the accuracy on new images"
        )
    if name not in FIGURES:
        raise unknown_name("metric", metric, [f"{split}/{known}" for known in FIGURES])
