"""A table of options, in Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One option or key.

    Attributes:
        name: What users type.
        type: The accepted values, in words.
        default: The default value as users type it; "required" if there is none.
        meaning: What it does.
    """

    name: str
    type: str
    default: str
    meaning: str


def table(options: Iterable[Option]) -> str:
    """Return a Markdown table of options, with one row per option; on a phone, docs/stylesheets/tables.css stacks its cells."""
    lines = ["| name | type | default | meaning |", "| --- | --- | --- | --- |"]
    for option in options:
        cells = (f"`{option.name}`", option.type, option.default, option.meaning)
        lines.append("| " + " | ".join(_cell(each) for each in cells) + " |")
    return "\n".join(['<div class="options" markdown>', "", *lines, "", "</div>"])


def code(value: object) -> str:
    """Return a value as code, as YAML and the command line write it."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, bool) or value is None:
        return f"`{words[value]}`"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value}`" if value != "" else "empty"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
