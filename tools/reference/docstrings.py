"""What docstrings say about options: read by griffe, which mkdocstrings uses too."""

import inspect
import logging
from typing import Any

from griffe import Docstring, DocstringSectionKind

logging.getLogger("griffe").setLevel(logging.ERROR)  # types stand in signatures
PARTS = (DocstringSectionKind.parameters, DocstringSectionKind.attributes)


def summary(thing: Any) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def text(thing: Any) -> str:
    """Return the prose of a docstring: everything before its first section."""
    return "\n\n".join(
        str(section.value) for section in _sections(thing) if section.kind is DocstringSectionKind.text
    ).strip()


def meanings(thing: Any) -> dict[str, str]:
    """Return the meaning of each argument or attribute; a class has those of its bases too."""
    found: dict[str, str] = {}
    for each in reversed(thing.__mro__) if isinstance(thing, type) else [thing]:
        if each.__module__.startswith("sightline"):
            for section in _sections(each):
                if section.kind in PARTS:
                    found |= {part.name: part.description for part in section.value}
    return found


def references(thing: Any) -> str:
    """Return the papers that a docstring names, or those of the nearest base that names some, as a list in Markdown."""
    named = [found for each in getattr(thing, "__mro__", [thing]) if (found := _papers(each))]
    return "\n".join(named[0] if named else []).replace("\n- ", "\0").replace("\n", " ").replace("\0", "\n- ")


def _papers(thing: Any) -> list[str]:
    return [
        line.strip() if line[:1].isspace() else f"- {line}"
        for section in (_sections(thing) if thing.__module__.startswith("sightline") else ())
        if section.kind is DocstringSectionKind.admonition and section.value.kind == "references"
        for line in section.value.contents.splitlines()
    ]


def example(thing: Any) -> str:
    """Return the example of a docstring; empty without one."""
    found = [section.value for section in _sections(thing) if section.kind is DocstringSectionKind.examples]
    return "\n\n".join(str(text) for parts in found for _, text in parts)


def _sections(thing: Any) -> list[Any]:
    own = thing.__doc__ if isinstance(thing, type) else inspect.getdoc(thing)
    return Docstring(inspect.cleandoc(own or "")).parse("google")
