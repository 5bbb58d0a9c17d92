"""Loggers beside the run folder: what they are told, when they fail, and when a run is resumed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric.loggers.logger import Logger
from safetensors.torch import load_file

import tiny
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.runs import Run
from sightline.training import train
from sightline.training.loggers import Loggers, connection
from tiny import recipe

STAGES = [{"epochs": 3, "lr": 1e-3}]


class Notebook(Logger):
    """Writes down what it is told; fails at some rows, each once."""

    def __init__(self, version: str = "a", fails: tuple[int, ...] = (), always: bool = False) -> None:
        self.told, self.params, self.ended = [], [], []
        self.fails, self.always, self._version = list(fails), always, version

    @property
    def name(self) -> str:
        return "notebook"

    @property
    def version(self) -> str:
        return self._version

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.params.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.always or step in self.fails:
            self.fails = [each for each in self.fails if each != step]
            raise ConnectionError("no route")
        self.told.append((step, metrics))

    def finalize(self, status: str) -> None:
        self.ended.append(status)


def steps(notebook: Notebook) -> list[int]:
    return [step for step, _ in notebook.told]


def test_a_logger_is_told_the_recipe_and_every_row(tmp_path: Path) -> None:
    notebook = Notebook()
    run = train(recipe(stages=STAGES), output=tmp_path / "run", loggers=[notebook])
    assert notebook.params == [recipe(stages=STAGES).model_dump(mode="json")]
    assert steps(notebook) == [1, 2, 3]
    for (_, told), row in zip(notebook.told, run.rows):
        assert told == {key: float(value) for key, value in row.items() if key != "epoch" and value}
    assert "val/accuracy" in notebook.told[-1][1]
    assert notebook.ended == ["success"]
    assert run.facts["loggers"] == {"Notebook.0": {"id": "a", "epochs": 3}}


def test_logger_that_fails_does_not_stop_training_and_gets_what_it_missed_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine, dead = Notebook(fails=(1,)), Notebook(), Notebook(always=True)
    run = train(recipe(stages=STAGES), output=tmp_path / "run", loggers=[broken, fine, dead])
    alone = train(recipe(stages=STAGES), output=tmp_path / "alone")
    weights, expected = load_file(run.last), load_file(alone.last)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert run.facts["status"] == "finished"
    assert steps(broken) == steps(fine) == [1, 2, 3]
    assert broken.ended == fine.ended == ["success"]
    assert dead.ended == []
    assert caplog.text.count("Notebook.2 cannot be reached, and is asked again when the run ends: no route") == 2
    assert run.facts["loggers"]["Notebook.2"]["epochs"] == 0


def test_a_resumed_run_tells_what_is_new_and_a_new_logger_everything(tmp_path: Path) -> None:
    def killed(more: bool) -> None:
        raise KeyboardInterrupt

    first = Notebook()
    with pytest.raises(KeyboardInterrupt):
        train(recipe(stages=STAGES), output=tmp_path / "run", watch=killed, loggers=[first])
    assert (steps(first), first.ended) == ([1], ["failed"])
    again, other = Notebook(), Notebook("b")
    train(recipe(stages=STAGES), output=tmp_path / "run", resume=True, loggers=[again, other])
    assert steps(again) == [2, 3]
    assert steps(other) == [1, 2, 3]


def test_rows_that_run_json_lists_as_sent_are_not_sent_again(tmp_path: Path) -> None:
    run = train(recipe(), output=tmp_path / "run")
    run.update(loggers={"Notebook.0": {"id": "a", "epochs": 1}})
    notebook = Notebook()
    links = Loggers(run)
    links.open(recipe(), [notebook])
    links.close("success", {"test/accuracy": 0.5})
    assert notebook.told[-1] == (2, {"test/accuracy": 0.5})
    assert steps(notebook) == [2, 2]


def test_a_missing_package_is_met_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, SimpleNamespace(origin=None)):  # none; or a folder that W&B made where the command runs
        monkeypatch.setattr(connection, "find_spec", lambda name, found=found: found)
        with pytest.raises(
            SightlineError, match=r"wandb, which is not installed: pip install 'sightline-xai\[wandb\]'"
        ):
            train(recipe(loggers=["wandb"]), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [(["wandb", {"name": "wandb", "project": "x"}], "wandb comes twice"), (["wandbe"], "loggers.0.name is 'wandbe'")],
)
def test_recipe_invalid_loggers_raise(given: list[Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        recipe(loggers=given)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """MLflow's client and the keys of a recipe that uses it, on a database file."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: its logger is not tested")
    pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: MLflow's logger is not tested")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return mlflow.MlflowClient(uri), {"name": "mlflow", "tracking_uri": uri, "experiment_name": "squares"}


def test_mlflow_resumes_with_its_run_and_gets_the_final_values(store: Any, tmp_path: Path) -> None:
    client, keys = store
    asked = recipe(stages=[{"epochs": 2, "lr": 1e-3}], loggers=[keys])

    def killed(more: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, output=tmp_path / "run", watch=killed)
    found = client.get_run(Run(tmp_path / "run").facts["loggers"]["mlflow"]["id"])
    assert found.info.status == "FAILED"
    assert found.data.params["stages.0.lr"] == "0.001"
    assert found.data.params["data.name"] == "squares"

    run = train(asked, output=tmp_path / "run", resume=True)
    evaluation = evaluate(run, explainers=["gradcam"], metrics=["accuracy", "energy_in_mask"])["test"]
    experiment = client.get_experiment_by_name("squares").experiment_id
    (listed,) = client.search_runs([experiment])
    assert (listed.info.run_id, listed.info.status) == (found.info.run_id, "FINISHED")
    assert listed.info.run_name == "run"
    history = {each.step: each.value for each in client.get_metric_history(found.info.run_id, "train/loss")}
    assert history == {int(row["epoch"]): float(row["train/loss"]) for row in run.rows}
    assert listed.data.metrics["test/accuracy"] == evaluation["accuracy"].value
    assert listed.data.metrics["test/energy_in_mask/gradcam"] == evaluation["energy_in_mask@gradcam"].value


def test_a_wrong_option_leaves_nothing_behind(store: Any, tmp_path: Path) -> None:
    _, keys = store
    with pytest.raises(SightlineError, match="experiment_name"):
        train(recipe(loggers=[keys | {"experiment_nam": "x"}]), output=tmp_path / "run")
    with pytest.raises(SightlineError, match="mlflow cannot be used"):
        train(recipe(loggers=[keys | {"tracking_uri": "nothing://there"}]), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_only_rank_0_logs(store: Any, tmp_path: Path) -> None:
    client, keys = store
    (tmp_path / "recipe.yaml").write_text(recipe(loggers=[keys]).to_yaml())
    command = [sys.executable, tiny.__file__, str(tmp_path / "recipe.yaml"), str(tmp_path / "run"), "2"]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    (listed,) = client.search_runs([client.get_experiment_by_name("squares").experiment_id])
    assert [each.step for each in client.get_metric_history(listed.info.run_id, "train/loss")] == [1, 2]


@pytest.mark.slow
def test_wandb_resumes_with_its_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="W&B is not installed: its logger is not tested")
    monkeypatch.setenv("WANDB_SILENT", "true")
    own = wandb.init(mode="offline", dir=tmp_path)  # a run of the caller's is neither written to nor ended
    asked = recipe(loggers=[{"name": "wandb", "mode": "offline"}])
    run = train(asked, output=tmp_path / "run")
    identity = run.facts["loggers"]["wandb"]["id"]
    train(asked, output=tmp_path / "run", resume=True)
    assert run.facts["loggers"]["wandb"] == {"id": identity, "epochs": 2}
    files = sorted((run.path / "wandb").glob("offline-run-*/*.wandb"))
    assert {file.name for file in files} == {f"run-{identity}.wandb"}
    assert b"train/loss" in files[0].read_bytes()
    assert identity != own.id
    own.log({"alive": 1})
    own.finish()
