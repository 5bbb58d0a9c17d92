from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline import SightlineError
from sightline.cli.app import app
from sightline.reporting import comparison


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "b", "--against", "c", "d", "-o", "r.html"],
        ["a", "b", "-o", "r.html", "--against", "c", "d"],
        ["--against", "c", "d", "--output=r.html", "a", "b"],
        ["a", "b", "--against", "c", "--against", "d", "--output", "r.html"],
        ["a", "b", "--against=c", "d", "--output=r.html"],
    ],
)
def test_every_run_after_against_is_set_against(monkeypatch, arguments):
    calls = []
    monkeypatch.setattr(comparison, "compare", lambda *given: calls.append(given) or given[-1])
    done = CliRunner().invoke(app, ["compare", *arguments])
    assert done.exit_code == 0, done.output
    assert calls == [([Path("a"), Path("b")], [Path("c"), Path("d")], Path("r.html"))]


@pytest.mark.parametrize("arguments", [["a"], ["a", "--against"], ["--against", "a"]])
def test_both_sides_are_needed(arguments):
    assert CliRunner().invoke(app, ["compare", *arguments]).exit_code == 2


def test_a_folder_that_is_no_run_is_named(tmp_path):
    done = CliRunner().invoke(app, ["compare", str(tmp_path), "--against", str(tmp_path / "b")])
    assert isinstance(done.exception, SightlineError)
    assert f"{tmp_path} is not a run folder" in str(done.exception)
