"""`import sightline` stays quick, and its public names resolve."""

import subprocess
import sys

import pytest

import sightline as sl


def test_import_loads_no_optional_package() -> None:
    script = (
        "import sys, sightline, sightline.explainers, sightline.objectives.objective, sightline.guides\n"
        "heavy = {'timm', 'lightning_fabric', 'torchmetrics', 'sklearn', 'matplotlib', 'typer', 'rich', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", sl.__all__)
def test_every_public_name_resolves_and_has_a_docstring(name: str) -> None:
    assert getattr(sl, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such"):
        sl.no_such  # noqa: B018
