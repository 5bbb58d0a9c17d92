"""The generated pages of the docs list every command, option and key with a meaning."""

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("griffe", reason="griffe is not installed: pip install --group docs")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import sightline as sl
from reference.api import API_PAGES, PACKAGES, api_names
from reference.commands import EXAMPLE, every_command, options
from reference.keys import fields, parts, study_documents
from reference.pages import PAGES, registries
from reference.registered import own_entries, parameters
from sightline.data.transforms import train_transform
from sightline.runs.recipe import Recipe
from sightline.sweeping.document import Sweep

ROOTS: list[Any] = [Recipe, Sweep, *study_documents().values()]


def rows(page: str) -> dict[str, dict[str, list[str]]]:
    """Return the cells of every table row by section and name."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line[3:]
            found[section] = {}
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
            found[section][cells[0].strip("`")] = cells
    return found


def test_tables_of_options_have_the_class_that_the_stylesheet_stacks_on_phones() -> None:
    root = Path(__file__).parents[1]
    sheet = next(line for line in (root / "mkdocs.yml").read_text().splitlines() if line.startswith("extra_css"))
    (path,) = re.findall(r"[\w/]+\.css", sheet)
    (name,) = set(re.findall(r'<div class="(\w+)" markdown>', PAGES["recipe-keys.md"]()))
    assert f".{name} td:nth-child(3)::before" in (root / "docs" / path).read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_a_generated_page_has_type_default_and_meaning(name: str) -> None:
    found = rows(PAGES[name]())
    assert found
    for section, listed in found.items():
        for option, cells in listed.items():
            assert len(cells) == 4, (section, option)
            assert all(cells), f"{section}: {option} lacks its type, default or meaning"


def test_the_page_of_commands_has_every_option() -> None:
    found = rows(PAGES["commands.md"]())
    for command, function in every_command().items():
        assert len(found[command]) == len(inspect.signature(function).parameters), command


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.__name__)
def test_the_pages_of_keys_have_every_key_of_every_part(root: Any) -> None:
    texts = {**rows(PAGES["recipe-keys.md"]()), **rows(PAGES["sweep-keys.md"]()), **rows(PAGES["study-keys.md"]())}
    titles = {schema: title for title, schema in study_documents().items()}
    for part in parts([root]):
        assert texts[titles.get(part, part.__name__)].keys() >= part.model_fields.keys(), part
        assert all(option.meaning for option in fields(part)), part


@pytest.mark.parametrize("name", registries())
def test_the_page_of_a_registry_has_every_name_and_option(name: str) -> None:
    found = rows(PAGES[f"{name}.md"]())
    for entry in own_entries(registries()[name]):
        assert found[entry.name].keys() == {option.name for option in parameters(entry.factory)}


def test_parts_of_documents_have_different_names() -> None:
    for page in ("recipe-keys.md", "sweep-keys.md", "study-keys.md"):
        titles = [line for line in PAGES[page]().splitlines() if line.startswith("## ")]
        assert len(titles) == len(set(titles))


def test_generated_pages_are_not_committed() -> None:
    root = Path(__file__).parents[1]
    ignored = (root / ".gitignore").read_text().splitlines()
    assert {f"/docs/reference/{name}" for name in PAGES | API_PAGES} == {
        line for line in ignored if line.startswith("/docs/reference/")
    }


def test_a_new_option_of_the_code_needs_no_other_change() -> None:
    """The pages read signatures and docstrings: nothing is listed by hand."""
    names = {option.name for option in parameters(train_transform)}
    assert names == inspect.signature(train_transform).parameters.keys()


@pytest.mark.parametrize("name", every_command())
def test_the_help_of_a_command_has_an_example_of_its_own_options(name: str) -> None:
    function = every_command()[name]
    (example,) = EXAMPLE.findall(inspect.getdoc(function) or "")
    assert example.startswith(f"sightline {name}")
    known = {each for option in options(function) for each in option.name.split(", ")}
    assert {word for word in example.split() if word.startswith("-")} <= known


def test_short_and_long_names_of_an_option_are_both_listed() -> None:
    names = {option.name for option in options(every_command()["train"])}
    assert {"--output, -o", "--resume", "RECIPE", "[KEY=VALUE]..."} <= names


def test_every_public_name_is_on_the_page_of_its_package() -> None:
    listed = {name for package in PACKAGES for name in api_names(package)}
    modules = {name for name in sl.__all__ if isinstance(getattr(sl, name), ModuleType)}
    assert {f"sightline.{name}" for name in sl.__all__ if name not in modules} <= listed
    assert len(listed) == sum(len(api_names(package)) for package in PACKAGES)  # each on one page
