"""The pages of names that users choose: datasets, explainers, guides, metrics and others, with their options."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from reference.docstrings import example, meanings, references, text
from reference.tables import Option, code, table
from reference.words import type_words

HEAD = """# {title}

{intro} This page is generated from the code. `sightline list {listed}` prints the names.
Examples assume `import sightline as sl`, `import torch` and `from torch import nn`.
"""


def page(title: str, intro: str, listed: str, load: Callable[[], Any]) -> Callable[[], str]:
    """Return what makes the page of a registry."""

    def make() -> str:
        return "\n".join([HEAD.format(title=title, intro=intro, listed=listed), *map(_section, own_entries(load()))])

    return make


def own_entries(registry: Any) -> list[Any]:
    """Return the entries that sightline brings, without those of installed packages."""
    return [entry for entry in registry if entry.factory.__module__.startswith("sightline.")]


def parameters(factory: Callable[..., Any]) -> list[Option]:
    """Return the options of a function or class."""
    known = meanings(factory)
    takes: Any = vars(factory).get("__init__", factory) if isinstance(factory, type) else factory
    try:
        hints = get_type_hints(takes, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    found = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            default = "required" if parameter.default is parameter.empty else code(parameter.default)
            found.append(Option(name, type_words(hints.get(name, parameter.annotation)), default, known.get(name, "")))
    return found


def _section(entry: Any) -> str:
    able = [name if value is True else f"{name}={value}" for name, value in entry.capabilities.items() if value]
    parts = [f"## {entry.name}", text(entry.factory)]
    parts += [f"Capabilities: {', '.join(f'`{each}`' for each in able)}."] if able else []
    options = parameters(entry.factory)
    parts.append(table(options) if options else "No options.")
    papers, code = references(entry.factory), example(entry.factory)
    parts += [f"References:\n\n{papers}"] * bool(papers) + [f"```pycon\n{code}\n```"] * bool(code)
    return "\n\n".join(parts) + "\n"
