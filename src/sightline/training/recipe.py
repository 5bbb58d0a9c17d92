"""A recipe: everything that decides a run, read from strict YAML.

pydantic checks keys, types and ranges; this file turns what it finds into one line that names the key.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sightline.errors import SightlineError, unknown_name

Count = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, gt=0)]
Real = Annotated[float, Field(strict=True)]  # whole numbers too, but no text and no true or false
Mode = Literal["max", "min"]


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Section(BaseModel):
    """A part of a recipe: fixed once made, and without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(BaseModel):
    """A data set by its registered name; every other key is an option of that data set."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the data set's factory gets."""
        return dict(self.model_extra or {})


class Model(Section):
    """A model for `sightline.load_model`, and the layer that guides look at (null: chosen by its family)."""

    name: str
    weights: str | None = None
    layer: str | None = None


class Schedule(Section):
    """How the learning rate runs over a stage.

    Attributes:
        name: `constant`, `cosine` (to 0 at the stage's end) or `step` (times `factor` every `every` epochs).
        warmup: share of the stage's steps over which the rate first rises from 0, linearly.
    """

    name: Literal["constant", "cosine", "step"] = "constant"
    warmup: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    every: Positive = 30
    factor: Annotated[Real, Field(gt=0, le=1)] = 0.1


class Optimizer(Section):
    """Adam, AdamW or SGD; `momentum` is SGD's."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9


class Stage(Section):
    """A part of the training with its own optimiser.

    Attributes:
        epochs: passes over the training split.
        lr: the learning rate that the schedule starts from.
        trainable: `all`, or `head`: the classifier (and what a guide adds), the rest being frozen, BatchNorm included.
        guide: `inherit` takes the recipe's; null trains on the task alone; else as the recipe's.
        schedule: null takes the recipe's.
    """

    epochs: Positive
    lr: Annotated[Real, Field(gt=0)]
    trainable: Literal["all", "head"] = "all"
    guide: Any = "inherit"
    schedule: Annotated[Schedule | None, BeforeValidator(_named)] = None


class Watch(Section):
    """A validation metric, such as `val/accuracy`, and which end of it is good."""

    metric: str
    mode: Mode = "max"


class EarlyStopping(Watch):
    """Ends a stage after `patience` epochs without a better value."""

    patience: Positive


class Evaluation(Section):
    """What is measured after training; null takes what `sightline.evaluation` takes.

    `slow_samples` is how many images of a split insertion and deletion see, which ask the model 448 times about each.
    """

    splits: list[str] | None = None
    explainers: list[str] | None = None
    metrics: list[str] | None = None
    slow_samples: Positive = 64


class Recipe(Section):
    """Everything that decides a run.

    Attributes:
        name: of the run.
        seed: of weights, order, augmentation and all else that is random.
        data: the data set and its options.
        size: the input's side in pixels; null takes the model's own.
        model: the model and its weights.
        guide: what `sightline.guides.from_config` reads: null, a name, a mapping with `name` and options, or a list.
        view_chunk: views of a guide that go through the model at a time, which bounds memory; null takes all at once.
        batch_size: images of one forward, over all processes together.
        accumulate: forwards of one optimiser step.
        augment: options of `sightline.data.transforms.train_transform`.
        stages: trained one after the other.
        optimizer: its learning rate is the stage's.
        schedule: of every stage that names none.
        precision: Lightning Fabric's name for it.
        gradient_clip: largest norm of the gradient; null clips nothing.
        early_stopping: null trains every epoch.
        validate_every: epochs from one validation to the next; the last epoch of a stage is always validated.
        select: the metric by which `best.safetensors` is kept; null keeps the last checkpoint alone.
        workers: processes that load data, on each training process.
        cache: decode every training image once, and keep it in memory.
        evaluation: what is measured after training.
    """

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    seed: Count = 0
    data: Annotated[Data, BeforeValidator(_named)]
    size: Positive | None = None
    model: Annotated[Model, BeforeValidator(_named)]
    guide: Any = None
    view_chunk: Positive | None = None
    batch_size: Positive = 32
    accumulate: Positive = 1
    augment: dict[str, Any] = {}
    stages: Annotated[list[Stage], Field(min_length=1)]
    optimizer: Annotated[Optimizer, BeforeValidator(_named)] = Optimizer()
    schedule: Annotated[Schedule, BeforeValidator(_named)] = Schedule()
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    gradient_clip: Annotated[Real, Field(gt=0)] | None = None
    early_stopping: EarlyStopping | None = None
    validate_every: Positive = 1
    select: Watch | None = None
    workers: Count = 0
    cache: Annotated[bool, Field(strict=True)] = False
    evaluation: Evaluation = Evaluation()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SightlineError("recipe: " + "; ".join(_explain(e["loc"], e) for e in error.errors())) from None

    def guide_of(self, stage: Stage) -> Any:
        """The configuration of a stage's guide."""
        return self.guide if stage.guide == "inherit" else stage.guide

    def to_yaml(self) -> str:
        """Every key with its value, as `read_recipe` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_recipe(source: str | Path | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file or from the package, with keys overridden.

    Args:
        source: a path, the name of a recipe that sightline ships, or a recipe.
        overrides: `key.sub=value` each, the value in YAML; a number steps into a list, as in `stages.0.epochs=2`.

    Raises:
        SightlineError: names what cannot be read, the unknown key with the nearest one, or the value out of range.
    """
    if isinstance(source, Recipe):
        values = source.model_dump(mode="json")
    else:
        path = _find(source)
        values = _parse(path.read_text(encoding="utf-8"), str(path))
        if not isinstance(values, dict):
            raise SightlineError(f"recipe {path} holds {type(values).__name__}; expected a mapping of keys to values")
    for override in overrides:
        _override(values, override)
    return Recipe(**values)


def shipped_recipes() -> dict[str, Path]:
    """The recipes in the package, by name."""
    folder = Path(str(files("sightline"))) / "recipes" / "run"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def difference(one: Recipe, other: Recipe) -> str | None:
    """The first key in which two recipes differ, with both values; None where they are the same."""
    first, second = dict(_flat(one.model_dump(mode="json"))), dict(_flat(other.model_dump(mode="json")))
    for key in {**first, **second}:
        if first.get(key) != second.get(key):
            return f"{key} ({first.get(key)!r} and {second.get(key)!r})"
    return None


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number, as YAML 1.2 does, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise SightlineError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _find(source: str | Path) -> Path:
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise SightlineError(f"recipe: there is no file {str(source)!r}")
    raise unknown_name("recipe", str(source), shipped)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SightlineError(f"override {override!r} is not of the form key.sub=value")
    *path, last = key.split(".")
    place: Any = values
    for part in path:
        inner = place[_index(place, part, key)] if isinstance(place, list) else place.get(part)
        if not isinstance(inner, dict | list):  # a short form, such as `schedule: cosine`, opens into its long one
            inner = {} if inner is None else {"name": inner}
            place[part] = inner
        place = inner
    place[_index(place, last, key) if isinstance(place, list) else last] = _parse(text, f"override {override!r}")


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise SightlineError(f"override {key!r}: {part!r} is no place in a list of {len(items)}, counted from 0")
    return int(part)


def _explain(location: tuple[int | str, ...], error: Mapping[str, Any]) -> str:
    path = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        prefix = path.rpartition(".")[0]
        known = _section(location[:-1]).model_fields
        return str(unknown_name("key", path, [f"{prefix}.{name}".lstrip(".") for name in known]))
    if error["type"] == "missing":
        return f"{path} is missing"
    return f"{path} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _section(location: Iterable[int | str]) -> type[BaseModel]:
    """The part of the schema that a path of keys leads to."""
    section: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, str):
            section = next(_models(section.model_fields[part].annotation))
    return section


def _models(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield path, value
        return
    for key, inner in pairs:
        yield from _flat(inner, f"{path}.{key}".lstrip("."))
