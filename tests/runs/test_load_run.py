"""`load_run`: what a trained run says about itself, and what is no run."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sightline as sl
from sightline.evaluation import evaluate
from sightline.models.filter_groups import carried_filter_groups
from sightline.runs import Run, load_run, read_recipe
from tiny import SIDE, recipe

SELECTING = {"save_best": {"metric": "val/accuracy"}, "seed": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sl.train(recipe(**SELECTING), output=tmp_path_factory.mktemp("runs") / "run")


def test_load_run_gives_the_model_with_what_is_known_of_it(run: Run) -> None:
    for given in (run, run.path, str(run.path)):
        loaded = load_run(given, "cpu")
        assert loaded.run == run
        assert loaded.recipe == read_recipe(run.path / "recipe.yaml")
        assert loaded.classes == ["red", "blue"]
        assert loaded.layer == "relu2"  # chosen by the family: the recipe names none
        assert loaded.input_spec == sl.load_model("sightline/lenet5", size=SIDE)[1]
        assert loaded.splits["test"].fingerprint == run.facts["data"]["test"]["fingerprint"]
        assert not any(module.training for module in loaded.model.modules())
    assert loaded.device == torch.device("cpu")


def test_load_run_takes_the_checkpoint_that_the_run_is_judged_by(run: Run, tmp_path: Path) -> None:
    assert load_run(run).weights == run.best
    last = load_run(run, checkpoint="last")
    assert last.weights == run.last
    for name, tensor in load_file(run.last).items():
        assert torch.equal(last.model.state_dict()[name].cpu(), tensor)
    plain = sl.train(recipe(stages=[{"epochs": 1, "lr": 1e-3}]), output=tmp_path / "plain")
    assert load_run(plain).weights == plain.last
    with pytest.raises(sl.SightlineError, match="has no checkpoint 'best'"):
        load_run(plain, checkpoint="best")
    with pytest.raises(sl.SightlineError, match="checkpoint is 'first'; expected 'last' or 'best'"):
        load_run(plain, checkpoint="first")  # type: ignore[arg-type]


def test_loaded_model_is_channels_last_as_in_training(run: Run) -> None:
    convolutions = [m for m in load_run(run).model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions
    for each in convolutions:
        assert each.weight.is_contiguous(memory_format=torch.channels_last)


def test_moved_run_loads_from_the_new_folder(run: Run, tmp_path: Path) -> None:
    before = load_run(run, "cpu").model.state_dict()
    moved = Run(run.path.rename(tmp_path / "elsewhere"))
    try:
        loaded = load_run(moved.path, "cpu")
        assert loaded.weights == moved.best
        assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    finally:
        moved.path.rename(run.path)


def test_run_interrupted_after_an_epoch_loads(tmp_path: Path) -> None:
    def stop(epoch: int, *_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sl.train(recipe(), output=tmp_path / "run", watch=stop)
    run = Run(tmp_path / "run")
    assert run.facts["status"] == "failed: interrupted"
    assert load_run(run).weights == run.last


def test_run_without_checkpoint_raises(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.begin(recipe(), {"classes": ["red", "blue"]})
    with pytest.raises(sl.SightlineError, match=r"has no checkpoint 'last'; finish the run with `sightline train"):
        load_run(run)


@pytest.mark.parametrize("missing", ["run.json", "recipe.yaml"])
def test_folder_without_its_records_is_not_a_run(run: Run, tmp_path: Path, missing: str) -> None:
    for file in {"run.json", "recipe.yaml"} - {missing}:
        (tmp_path / file).write_text((run.path / file).read_text())
    with pytest.raises(sl.SightlineError, match=f"{tmp_path} is not a run folder: it holds no {missing}"):
        load_run(tmp_path)


def test_model_carries_the_groups_that_the_guide_found(tmp_path: Path) -> None:
    guide = {"name": "iccnn", "groups": 2}
    run = sl.train(recipe(guide=guide, stages=[{"epochs": 1, "lr": 1e-3}]), output=tmp_path / "run")
    found = carried_filter_groups(load_run(run, "cpu").model)
    assert found is not None
    layer, groups = found
    assert layer == load_run(run).layer == json.loads((run.path / "run.json").read_text())["model"]["layer"]
    assert sorted(set(groups.tolist())) == [0, 1]


def test_a_run_that_is_not_finished_is_loaded_with_a_warning(tmp_path: Path) -> None:
    run = sl.train(recipe(stages=[{"epochs": 1, "lr": 1e-3}]), output=tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_run(run)
    run.update(status="failed: interrupted")
    with pytest.warns(
        UserWarning, match=r"run is not finished \(failed: interrupted\): .* those of 1 of at most 1 epochs"
    ):
        load_run(run)
    with pytest.warns(UserWarning, match="is not finished"):
        evaluate(run, ["test"], ["gaussian"], ["accuracy"])
