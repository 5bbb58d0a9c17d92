import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import sightline as sl
from sightline.cli.app import app
from sightline.errors import SightlineError
from sightline.training import Run, read_recipe
from sightline.training.checkpoint import write_weights


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The folder of a run that has not been trained."""
    recipe = {"name": "a", "data": "digits", "model": "torchvision/squeezenet1_1", "stages": [{"epochs": 1, "lr": 0.1}]}
    folder = Run(tmp_path / "run")
    facts = {
        "model": {"name": "torchvision/squeezenet1_1", "layer": None},
        "classes": ["cat", "dog"],
        "input_spec": {"size": [64, 64]},
    }
    folder.begin(read_recipe(sl.Recipe(**recipe)), facts)
    return folder


def export(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if done.exception:
        raise done.exception
    return done.stdout


def test_the_best_weights_are_exported_where_there_are_any(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="has no checkpoint yet"):
        export(run.path, "-o", tmp_path / "none", "--formats", "state-dict")
    for file in (run.last, run.best):
        model, _ = sl.load_model("torchvision/squeezenet1_1", None, 2, 64)
        write_weights(file, model.state_dict(), {})
        output = tmp_path / file.stem
        assert export(run.path, "-o", output, "--formats", "state-dict").replace("\n", "") == str(output)
        exported = load_file(output / "model.safetensors")
        assert exported.keys() == model.state_dict().keys()
        assert all(tensor.equal(exported[key]) for key, tensor in model.state_dict().items())
        facts = json.loads((output / "model.json").read_text())
        assert (facts["name"], facts["classes"]) == ("torchvision/squeezenet1_1", ["cat", "dog"])
    with pytest.raises(SightlineError, match="did you mean 'onnx'"):
        export(run.path, "-o", tmp_path / "none", "--formats", "state-dict,onxx")
