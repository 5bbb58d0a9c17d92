"""Types in words."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sightline._core.nesting import LARGEST_INTEGER
from sightline._core.typed_options import WORDS

LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def type_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return the values that an annotation accepts, in words; a part of a document is a link to its section."""
    if isinstance(annotation, FieldInfo):
        return type_words(annotation.annotation, annotation.metadata)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(arguments[0], [*arguments[1:], *metadata])
    limits = _limits(metadata)
    if annotation in WORDS:
        return WORDS[annotation].removeprefix("a ") + limits
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin in (Union, UnionType):
        parts = sorted(arguments, key=lambda each: each is NoneType)
        return " or ".join(dict.fromkeys(type_words(each) for each in parts)) + limits
    if inspect.isabstract(annotation):
        return annotation.__name__.lower()  # each of its kinds has a section
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is Callable:
        return "function"
    if origin is tuple and Ellipsis not in arguments:
        return f"list of {len(arguments)}: {' or '.join(dict.fromkeys(map(type_words, arguments)))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {type_words(arguments[0])} to {type_words(arguments[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {type_words(arguments[0])}"
    if annotation in (Any, inspect.Parameter.empty):
        return "any"
    return str(getattr(annotation, "__name__", annotation))


def _limits(metadata: Sequence[Any]) -> str:
    found = []
    for each in metadata:
        nested = getattr(each, "metadata", None)  # of a Field
        for item in nested or [each]:
            for name, sign in LIMITS.items():
                limit = getattr(item, name, None)
                if limit is not None and limit != LARGEST_INTEGER:
                    found.append(f"{sign} {limit}")
    return f" ({', '.join(found)})" if found else ""
