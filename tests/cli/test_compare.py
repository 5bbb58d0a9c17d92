from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import sightline as sl
from sightline import SightlineError, evaluation
from sightline.cli.app import app
from sightline.evaluation.comparison import read_comparison
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


def test_a_checkpoint_is_measured_as_the_run_was(tmp_path):
    recipe = sl.Recipe(
        name="digits", data={"name": "digits", "copies": 1, "size": 32}, image_size=32, model="sightline/lenet5",
        stages=[{"epochs": 1, "lr": 1e-3}],
    )  # fmt: skip
    run = sl.train(recipe, output=tmp_path / "run")
    evaluation.evaluate(run, ["test_shifted"], ["gaussian"], ["accuracy", "energy_in_mask"])
    weights = load_file(run.weights())
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "same.pth")
    with TemporaryDirectory() as folder:
        split = read_comparison([run.path], [tmp_path / "same.pth"], folder).splits[0]
        assert all(difference.value == 0 for difference in split.differences.values())
        assert len(split.differences) >= 2
    other = {key: torch.zeros_like(value) for key, value in weights.items()}
    torch.save(other, tmp_path / "zero.pth")
    page = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["compare", str(run.path), "--against", str(tmp_path / "zero.pth"), "-o", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "zero.pth is a checkpoint, so its training is not known." in text
    assert "The recipe of a checkpoint is not known." in text
    for given, words in (("zero.pth", "only checkpoints are given"), ("run", "is given twice")):
        with pytest.raises(SightlineError, match=words):
            comparison.compare([tmp_path / given], [tmp_path / ("same.pth" if given == "zero.pth" else given)], page)
