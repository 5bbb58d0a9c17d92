"""A study: one table or figure of a paper, as its YAML file describes it, and what every kind of them can do."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from matplotlib.figure import Figure
from pydantic import BeforeValidator, Field
from torch import Tensor

from sightline._core.registry import Registry
from sightline._core.strict import (
    Count,
    Positive,
    StrictDocument,
    StrictModel,
    apply_overrides,
    difference,
    name_or_mapping,
    read_mapping,
)
from sightline.errors import SightlineError, unknown_name
from sightline.explainers import create_explainer
from sightline.runs.recipe_parts import Model


@dataclass(frozen=True)
class Part:
    """A finished part of a study's work, small enough to keep.

    Attributes:
        values: what JSON can hold.
        tensors: images and maps, as uint8, and long columns of numbers.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)


Done = Mapping[str, Part]
"""The parts that are finished, by name."""


class SizedModel(Model):
    """A model with the size of its input.

    Attributes:
        size: the side of its input in pixels; null takes that of its weights.
    """

    size: Positive | None = None


class LabelledModel(SizedModel):
    """A model, and what the paper calls it.

    Attributes:
        label: Name of the model in tables and figures.
    """

    label: str


class Method(StrictModel):
    """An explainer with its options, and what the paper calls it.

    Attributes:
        label: Name of the method in tables and figures.
        name: Name of the explainer (`sightline list explainers`).
        options: Options of the explainer.
    """

    label: str
    name: str
    options: dict[str, Any] = Field(default_factory=dict)


def labelled(value: Any) -> Any:
    """Return a method given by its name alone as a mapping whose label is the name; for pydantic's validators."""
    return {"label": value, "name": value} if isinstance(value, str) else value


AnyModel = Annotated[SizedModel, BeforeValidator(name_or_mapping)]


class Study(StrictDocument, ABC):
    """What a paper's table or figure takes, divided into parts that are kept as they finish.

    A kind of study is a subclass, registered by the name that the YAML file gives as `kind`.

    Attributes:
        paper: short name of the paper, the folder of the YAML file; empty for a study that is nobody's but the user's.
        item: the table or figure; the file's name.
        kind: The kind of study, which decides the other keys.
        title: what it shows.
        source: where the paper has it; empty where no paper has.
        notes: sentences for the report, such as what is done otherwise than in the paper and why.
        seed: of everything drawn.
    """

    noun: ClassVar[str] = "study"
    independent_runs: ClassVar[bool] = False  # whether several processes can do parts at a time, after those of `needs`
    shared_images: ClassVar[bool] = (
        False  # whether several processes can do a part together, each its share of the images
    )

    paper: str
    item: str
    kind: str
    title: str
    source: str
    notes: list[str] = Field(default_factory=list)
    seed: Count = 0

    @property
    def called(self) -> str:
        """Its name in messages."""
        return f"{self.paper}/{self.item}" if self.paper else self.item

    @abstractmethod
    def parts(self) -> list[str]:
        """Return the names of all parts, in the order of work."""

    def needs(self, part: str) -> list[str]:
        """Return the parts, earlier in the order of work, that a part needs."""
        return []

    @abstractmethod
    def scaled(self, scale: float) -> Self:
        """Return the same protocol on this share of the data."""

    def incompatibility(self, before: "Study") -> str | None:
        """Say what keeps this study from using the parts of an earlier form of it; None: nothing. Words are free to change."""
        words = {"title": self.title, "source": self.source, "notes": self.notes}
        return difference(before.model_copy(update=words), self)

    def is_complete(self, name: str, part: Part) -> bool:
        """Whether a finished part has all that the study asks of it."""
        return True

    @abstractmethod
    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Load what the work needs, and return what does a part by its name.

        Args:
            device: where models run.
            folder: of the study, where a part that takes long may keep what it needs to continue; made with the first part.

        Raises:
            SightlineError: data or weights are missing; the message says which keys to give.
        """

    @abstractmethod
    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return the rows of table.csv for the parts that are done."""

    @abstractmethod
    def summary(self, done: Done) -> str:
        """Return the text of the report: the study's values next to the paper's, in Markdown."""

    def figures(self, done: Done) -> dict[str, Figure]:
        """Images by file name, when all parts are done."""
        return {}

    def files(self, done: Done) -> dict[str, bytes]:
        """Other files by name, for the parts that are done."""
        return {}


KINDS: Registry[Study] = Registry(
    "study kind",
    modules=("sightline.map_studies", "sightline.galleries", "sightline.experiments"),
)


def check_labels(key: str, labels: Sequence[str], taken: Sequence[str] = ()) -> None:
    """Reject labels that do not tell one from another; a ValueError, as pydantic's validators raise."""
    for label in labels:
        if labels.count(label) > 1 or label in taken:
            raise ValueError(f"{key}: the label {label!r} is taken")


def check_methods(methods: Iterable[Method]) -> None:
    """Reject an unknown method or option before any work is done."""
    for method in methods:
        create_explainer(method.name, **method.options)


def read_study(paper: str, item: str, overrides: Sequence[str] = ()) -> Study:
    """Read a study that sightline ships, with keys overridden.

    Args:
        paper: short name, such as `lots`.
        item: a table, figure or section, such as `table-5.3`.
        overrides: `key.sub=value` each, as for `sightline.runs.read_recipe`.

    Raises:
        SightlineError: there is no such paper or item, no such key, or a value is out of its range.
    """
    shipped = shipped_studies()
    papers = {name.partition("/")[0] for name in shipped}
    if paper not in papers:
        raise unknown_name("paper", paper, papers)
    if f"{paper}/{item}" not in shipped:
        items = [name.partition("/")[2] for name in shipped if name.startswith(f"{paper}/")]
        raise unknown_name(f"item of the paper {paper!r}:", item, items)
    path = shipped[f"{paper}/{item}"]
    return make_study({"paper": paper, "item": item} | read_mapping(path), overrides)


def study_from_yaml(path: Path) -> Study:
    """Read the study for which a folder of results was made."""
    return make_study(read_mapping(path))


def shipped_studies() -> dict[str, Path]:
    """Return the studies in the package, as `paper/item`."""
    folder = Path(str(files("sightline"))) / "recipes" / "study"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.yaml"))}


def scale_count(count: int, scale: float) -> int:
    """Return a share of a number of images or repetitions, at least 1."""
    return max(1, math.ceil(count * scale - 1e-9))


def make_study(values: dict[str, Any], overrides: Sequence[str] = ()) -> Study:
    """Make a study of the kind that its keys name, with keys overridden."""
    apply_overrides(values, overrides)
    if not isinstance(values.get("kind"), str):
        raise SightlineError(f"study: kind is {values.get('kind')!r}; expected one of {', '.join(KINDS.names())}")
    return KINDS[values["kind"]].factory(**values)
