"""Strict YAML: what recipes and studies are read with.

pydantic checks keys, types and ranges; this file turns what it finds into one line that names the key.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sightline._core.nesting import DEEPEST, LARGEST_INTEGER, check_nesting
from sightline._core.reading import reading
from sightline._core.registry import Registry
from sightline.errors import SightlineError, unknown_name


def _without_repeats(values: list[int]) -> list[int]:
    """Reject a value that is given twice: it would count twice in means and intervals."""
    if repeated := [value for number, value in enumerate(values) if value in values[:number]]:
        raise ValueError(f"{repeated[0]} is given twice")
    return values


Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_INTEGER)]
Positive = Annotated[int, Field(strict=True, gt=0, le=LARGEST_INTEGER)]
Seeds = Annotated[list[Count], Field(min_length=1), AfterValidator(_without_repeats)]
Real = Annotated[float, Field(strict=True)]  # whole numbers too, but no text and no true or false


def name_or_mapping(value: Any) -> Any:
    """Return the long form of a short one: a name alone becomes a mapping with that name."""
    return {"name": value} if isinstance(value, str) else value


def registered(registry: Registry[Any], kind: type) -> BeforeValidator:
    """Return a validator that makes an entry of a registry from its name, or from a mapping with the name and options."""

    def make(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        values = name_or_mapping(value)
        return registry[str(values.get("name"))].factory(**values)

    return BeforeValidator(make)


class StrictModel(BaseModel):
    """A part of a document: fixed once made; unknown keys are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StrictDocument(StrictModel):
    """A whole YAML document. What is wrong with it is one SightlineError that names the keys."""

    noun: ClassVar[str]

    def __init__(self, **values: Any) -> None:
        check_nesting(values, self.noun)
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = "; ".join(_explain(type(self), each["loc"], each) for each in error.errors())
            raise SightlineError(f"{self.noun}: {found}") from None

    def to_yaml(self) -> str:
        """Every key with its value, in the form that is read."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def difference(one: StrictDocument, other: StrictDocument) -> str | None:
    """Return the first key in which two documents differ, with both values; None if they are equal."""
    first, second = dict(flat(one.model_dump(mode="json"))), dict(flat(other.model_dump(mode="json")))
    for key in {**first, **second}:
        if first.get(key) != second.get(key):
            return f"{key} ({first.get(key)!r} and {second.get(key)!r})"
    return None


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML text; `where` says in errors where it comes from."""
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise SightlineError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        # Dates and numbers out of range, and deep nesting.
        raise SightlineError(f"{where} cannot be read as YAML: {error}") from error
    check_nesting(value, where)
    return value


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """As `parse_yaml`, for a text that must be a mapping."""
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise SightlineError(f"{where} holds {type(values).__name__}; expected a mapping of keys to values")
    return values


def read_mapping(path: Path, where: str | None = None) -> dict[str, Any]:
    """Return the mapping of a YAML file; `where` is what messages call the file."""
    with reading(path, "save it as YAML in UTF-8"):
        text = path.read_text(encoding="utf-8")
    return parse_mapping(text, where or str(path))


Overrides = Sequence[str] | Mapping[str, Any]
"""Changes to a document: texts `key.sub=value` with the value in YAML, or a mapping of dotted keys to values."""


def apply_overrides(values: dict[str, Any], overrides: Overrides) -> None:
    """Change some values in place, one after the other.

    Raises:
        SightlineError: an override is not of the form key.sub=value, or names a place that a list does not have.
    """
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            check_nesting(value, f"override {key!r}")
            _set(values, key, copy.deepcopy(value))
    else:
        for override in overrides:
            _set(values, *_read(override))


def override_text(key: str, value: Any) -> str:
    """Return a key and its value as the command line takes them; `apply_overrides` reads the same value back."""
    plain = isinstance(value, str) and parse_yaml(value, "value") == value
    return f"{key}={value if plain else json.dumps(value)}"


def _read(override: str) -> tuple[str, Any]:
    """Return the dotted key and the value of `key.sub=value`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SightlineError(f"override {override!r} is not of the form key.sub=value, such as seed=1")
    return key, parse_yaml(text, f"override {override!r}")


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in place; `key.+` adds one to the end of a list."""
    if not isinstance(key, str) or not all(parts := key.split(".")) or len(parts) > DEEPEST:
        raise SightlineError(
            f"override {key!r:.100} is not a key; expected names joined by dots, at most {DEEPEST} of them"
        )
    *path, last = parts
    place: Any = values
    for part in path:
        inner = place[_index(place, part, key)] if isinstance(place, list) else place.get(part)
        if not isinstance(inner, dict | list):  # a short form, such as `schedule: cosine`, opens into its long one
            inner = {} if inner is None else {"name": inner}
            place[_index(place, part, key) if isinstance(place, list) else part] = inner
        place = inner
    if isinstance(place, list) and last == "+":
        place.append(value)
    else:
        place[_index(place, last, key) if isinstance(place, list) else last] = value


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number, and yes, no, on and off as text, as YAML 1.2 does; and rejects a key given twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(items):
        raise SightlineError(
            f"override {key!r}: {part!r} is not a place in a list of {len(items)}, counted from 0; + adds one"
        )
    return int(part)


def _explain(root: type[BaseModel], location: tuple[int | str, ...], error: Mapping[str, Any]) -> str:
    path = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        prefix = path.rpartition(".")[0]
        known = _section(root, location[:-1]).model_fields
        return str(unknown_name("key", path, [f"{prefix}.{name}".lstrip(".") for name in known]))
    if error["type"] == "missing":
        return f"{path} is missing"
    if error["type"] == "value_error":  # raised by the schema's own checks, which name the key
        return str(error["ctx"]["error"])
    return f"{path} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _section(root: type[BaseModel], location: Iterable[int | str]) -> type[BaseModel]:
    """Return the part of the schema that a path of keys leads to."""
    section = root
    for part in location:
        if isinstance(part, str):
            section = next(_models(section.model_fields[part].annotation))
    return section


def _models(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value in nested mappings and lists, with its dotted key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield path, value
        return
    for key, inner in pairs:
        yield from flat(inner, f"{path}.{key}".lstrip("."))
