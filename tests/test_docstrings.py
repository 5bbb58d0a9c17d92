"""The docstrings of public names: examples run, and methods name their papers."""

import doctest
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import sightline as sl
from sightline.explainers import EXPLAINERS
from sightline.guides import GUIDES
from sightline.metrics import METRICS

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from reference.docstrings import references

TRAINS = {"Fixed", "compare", "fix"}  # their examples train or evaluate for some seconds
NO_PAPER = {"accuracy", "augmented", "gaussian", "randomcam", "view_stability"}
NO_PAPER |= {f"mark_{change}_accuracy" for change in ("pasted", "removed", "swapped")}


def own(registry: Any) -> dict[str, Any]:
    """Return what sightline registers by name, without entries of installed packages and of other tests."""
    return {entry.name: entry.factory for entry in registry if entry.factory.__module__.startswith("sightline.")}


DOCUMENTED = {name: getattr(sl, name) for name in sl.__all__} | {f"metric {k}": v for k, v in own(METRICS).items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in TRAINS else ()) for name in DOCUMENTED]
)
def test_example_of_a_public_name_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    thing = DOCUMENTED[name]
    text = inspect.cleandoc(thing.__doc__ or "")
    assert re.search(r"^Examples:$", text, re.MULTILINE), f"{name} has no section `Examples:`"
    example = doctest.DocTestParser().get_doctest(text, {"sl": sl, "torch": torch, "nn": nn}, name, None, 0)
    said: list[str] = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.DocTestRunner(optionflags=options).run(example, out=said.append)
    assert result.attempted
    assert not result.failed, "".join(said)


@pytest.mark.parametrize("registry", [EXPLAINERS, GUIDES, METRICS], ids=["explainers", "guides", "metrics"])
def test_a_method_names_its_papers_with_their_years(registry: Any) -> None:
    factories = own(registry)
    assert len(factories) > 15
    for name, factory in factories.items():
        papers = references(factory)
        if name in NO_PAPER:
            assert not papers, name
        else:
            assert re.search(r"\b(19|20)\d\d\b|manuscript", papers), f"{name} has no paper under `References:`"


def test_a_public_function_says_what_it_returns_and_raises() -> None:
    functions = {name: thing for name, thing in DOCUMENTED.items() if inspect.isfunction(thing)}
    assert len(functions) > 8
    for name, function in functions.items():
        text = inspect.cleandoc(function.__doc__ or "")
        assert "\nRaises:\n" in text or "Raises" in text, name
        if inspect.signature(function).return_annotation not in (None, "None"):
            assert "\nReturns:\n" in text, name


def test_a_public_module_describes_itself() -> None:
    modules = [thing for thing in DOCUMENTED.values() if isinstance(thing, ModuleType)]
    assert len(modules) == 8
