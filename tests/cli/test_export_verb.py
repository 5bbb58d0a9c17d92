import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import sightline as sl
from run_folders import begin_run
from sightline.cli.app import app
from sightline.errors import SightlineError
from sightline.runs import Run
from sightline.training.checkpoint import write_weights


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The folder of a run that has not been trained."""
    return begin_run(tmp_path / "run", "torchvision/squeezenet1_1", ["cat", "dog"], 64)


def export(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if done.exception:
        raise done.exception
    return done.stdout


def test_export_takes_the_weights_that_the_recipe_selects(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="has no checkpoint 'last'"):
        export(run.path, "-o", tmp_path / "none", "--formats", "state-dict")
    selecting = begin_run(
        tmp_path / "selecting", "torchvision/squeezenet1_1", ["cat", "dog"], 64, save_best={"metric": "val/accuracy"}
    )
    for file in (run.last, selecting.best):
        model, _ = sl.load_model("torchvision/squeezenet1_1", None, 2, 64)
        write_weights(file, model.state_dict(), {})
        output = tmp_path / file.stem
        assert export(file.parents[1], "-o", output, "--formats", "state-dict").replace("\n", "") == str(output)
        exported = load_file(output / "model.safetensors")
        assert exported.keys() == model.state_dict().keys()
        assert all(tensor.equal(exported[key]) for key, tensor in model.state_dict().items())
        facts = json.loads((output / "model.json").read_text())
        assert (facts["name"], facts["classes"]) == ("torchvision/squeezenet1_1", ["cat", "dog"])
    with pytest.raises(SightlineError, match="did you mean 'onnx'"):
        export(run.path, "-o", tmp_path / "none", "--formats", "state-dict,onxx")
