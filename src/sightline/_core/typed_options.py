"""Check options against the annotations of the function or class that takes them.

pydantic decides whether a value fits. Nothing is converted: text is not a number, and the value is passed on unchanged.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Field, InstanceOf, Strict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError

from sightline._core.nesting import LARGEST_INTEGER
from sightline.errors import SightlineError

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by Python code

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def check_options(
    factory: Callable[..., Any], options: Mapping[str, Any], name: str = "", choices: bool = False
) -> None:
    """Reject options whose values do not fit the annotations.

    Args:
        factory: What takes the options. A parameter without an annotation takes anything.
        options: Values by parameter.
        name: The name of what is made, for messages.
        choices: Check names among choices, too. Factories may do so with a better message; ask for it when one is done.

    Raises:
        SightlineError: A value does not fit.
    """
    annotations = _annotations(factory)
    for option, value in options.items():
        annotation = annotations.get(option, Any)
        if not _fits(annotation, value, choices):
            whose = f" (an option of {name!r})" if name else ""
            raise SightlineError(f"{option} is {_shown(value)}; expected {_described(annotation)}{whose}")


def check_constructor(kind: Any, name: str) -> None:
    """Let the constructor of a class check its arguments as `check_options` does."""
    construct: Callable[..., None] = kind.__init__
    if not kind.__flags__ & _HEAP_TYPE or construct is object.__init__:
        return  # such as `dict`, which cannot be changed, and what takes no arguments

    @wraps(construct)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = inspect.signature(construct).bind(self, *args, **kwargs)
        except TypeError:
            bound = None  # the constructor says what is missing
        if bound is not None and type(self) is kind:
            check_options(kind, bound.arguments, name)
        construct(self, *args, **kwargs)
        if bound is not None and type(self) is kind:
            check_options(kind, bound.arguments, name, choices=True)

    kind.__init__ = checked


def _annotations(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each parameter that can be given by name."""
    parameters = inspect.signature(factory).parameters.values()
    try:
        takes: Any = vars(factory).get("__init__", factory) if isinstance(factory, type) else factory
        hints = get_type_hints(takes, include_extras=True)
    except (NameError, TypeError, AttributeError):
        hints = {}
    found = {}
    for parameter in parameters:
        annotation = hints.get(parameter.name, parameter.annotation)
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or isinstance(annotation, str):
            continue
        if annotation is not parameter.empty:
            found[parameter.name] = annotation
    return found


def _fits(annotation: Any, value: Any, choices: bool = False) -> bool:
    try:
        adapter = _adapter(annotation, choices)
        adapter.validate_python(value.tolist() if isinstance(value, np.ndarray) else value)
    except (ValidationError, RecursionError):
        return False
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError, TypeError):
        return True  # no annotation that pydantic can check
    return True


@cache
def _adapter(annotation: Any, choices: bool) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(annotation, choices), config=ConfigDict(arbitrary_types_allowed=True))


def _plain(value: Any) -> Any:
    """Return the Python number of a number of numpy, and the text of a path."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, PurePath) else value


def _ordered(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("no list")
    return value


_LEAVES: dict[Any, Any] = {
    int: Annotated[int, BeforeValidator(_plain), Strict(), Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)],
    float: Annotated[float, BeforeValidator(_plain), Strict(), AllowInfNan(False)],
    str: Annotated[str, BeforeValidator(_plain), Strict()],
    bool: Annotated[bool, BeforeValidator(_plain), Strict()],
}


def _strict(annotation: Any, choices: bool) -> Any:
    """Return an annotation whose numbers, texts and booleans are not converted from each other."""
    if annotation in (int, float, str, bool):
        return _LEAVES[annotation]
    if isinstance(annotation, type) and annotation not in (Any, NoneType):
        instance = InstanceOf[annotation]
        called = any("__call__" in vars(base) for base in annotation.__mro__)
        return Union[instance, Callable[..., Any]] if called else instance  # noqa: UP007  # a function may stand for one
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return Union[tuple(_strict(each, choices) for each in arguments)]  # noqa: UP007  # of a number that is not known here
    if origin is Literal and not choices and all(isinstance(each, str) for each in arguments):
        return _LEAVES[str]  # the factory names the nearest one
    if origin is Annotated or origin is Literal or not arguments or any(isinstance(each, list) for each in arguments):
        return annotation
    whole = origin[tuple(_strict(each, choices) for each in arguments)]
    return Annotated[whole, BeforeValidator(_ordered)] if origin in (tuple, list) else whole


def _described(annotation: Any) -> str:
    """Return an annotation in words."""
    if annotation in WORDS:
        return WORDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_described, arguments)))
    if origin is Annotated:
        return _described(arguments[0])
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}, each {' or '.join(dict.fromkeys(map(_described, arguments)))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping with text as keys"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {_described(arguments[0])}"
    if origin is Callable:
        return "a function"
    return f"{getattr(annotation, '__name__', annotation)}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # such as an integer of more digits than Python prints
        return f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= 100 else f"{text[:100]}..."
