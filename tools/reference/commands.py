"""The page of all commands, made of the signatures that Typer reads."""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo

from reference.tables import Option, code, table
from reference.words import type_words

HEAD = """# Commands

Every command of `sightline`, with its arguments and options. `sightline COMMAND --help` prints the same. This page is generated
from the code. Arguments come without dashes. An option with "several" may be repeated.
"""
DEFAULT = re.compile(r"\s*\[default: (.*)\]\s*$", re.DOTALL)
EXAMPLE = re.compile(r"^Example: (.+)$", re.MULTILINE)


def every_command() -> dict[str, Callable[..., None]]:
    """Return the function of every command by the name of the command."""
    from sightline.cli.app import COMMANDS

    return {name: getattr(import_module(f"sightline.cli.{name}"), name) for name in sorted(COMMANDS)}


def commands() -> str:
    """Return the page."""
    return "\n".join([HEAD, *(section(name, function) for name, function in every_command().items())])


def section(name: str, function: Callable[..., None]) -> str:
    """Return the part of the page on one command."""
    text = inspect.getdoc(function) or ""
    example = EXAMPLE.search(text)
    parts = [f"## {name}", EXAMPLE.sub("", text).strip()]
    parts += [f"```bash\n{example[1].strip()}\n```"] if example else []
    return "\n\n".join([*parts, table(options(function))]) + "\n"


def options(function: Callable[..., None]) -> list[Option]:
    """Return the arguments and options of a command."""
    return list(_options(function))


def _options(function: Callable[..., None]) -> Iterator[Option]:
    parameters = inspect.signature(function).parameters
    for name, annotation in get_type_hints(function, include_extras=True).items():
        if name == "return":
            continue
        kind, info = get_args(annotation)
        help = info.help or ""
        spoken = DEFAULT.search(help)
        yield Option(
            _name(name, info),
            _type(kind, info),
            spoken[1] if spoken else _default(parameters[name].default),
            DEFAULT.sub("", help),
        )


def _name(name: str, info: Any) -> str:
    if isinstance(info, ArgumentInfo):
        return info.metavar or f"{name.upper()}"
    first = [info.default] if isinstance(info.default, str) else []  # in Annotated, Typer keeps the first name there
    return ", ".join([*first, *(info.param_decls or [])] or [f"--{name.replace('_', '-')}"])


def _type(kind: Any, info: Any) -> str:
    inner = [each for each in get_args(kind) if each is not NoneType]
    plain = inner[0] if NoneType in get_args(kind) and len(inner) == 1 else kind
    many = getattr(plain, "__origin__", None) is list
    plain = get_args(plain)[0] if many else plain
    words = "path" if plain is Path else "flag" if plain is bool else type_words(plain)
    limits = [f">= {info.min}"] * (info.min is not None) + [f"<= {info.max}"] * (info.max is not None)
    return words + (f" ({', '.join(limits)})" if limits else "") + (", several" if many else "")


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if value is None:
        return "none"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else code(value)
