import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sightline as sl
from sightline import SightlineError
from sightline.cli.app import app


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = sl.Recipe(
        name="digits", data={"name": "digits", "copies": 1, "size": 32}, image_size=32, model="sightline/lenet5",
        stages=[{"epochs": 1, "lr": 1e-3}],
    )  # fmt: skip
    return sl.train(recipe, output=tmp_path_factory.mktemp("runs") / "digits").path


def test_what_is_asked_for_is_measured_and_written(run: Path) -> None:
    asked = [
        "--splits",
        "test_shifted",
        "--explainers",
        "gaussian,gradcam",
        "--metrics",
        "accuracy,deletion",
        "--max-images-slow",
        "2",
    ]
    done = CliRunner().invoke(app, ["evaluate", str(run), *asked])
    assert done.exit_code == 0, done.output
    assert [folder.name for folder in (run / "evaluation").iterdir()] == ["test_shifted"]
    results = json.loads((run / "evaluation" / "test_shifted" / "summary.json").read_text())["results"]
    assert {(r["metric"], r["explainer"]) for r in results} == {
        ("accuracy", None), ("deletion", "gaussian"), ("deletion", "gradcam"),
    }  # fmt: skip
    assert {r["n"] for r in results if r["metric"] == "deletion"} == {2}


def test_an_unknown_metric_is_refused_with_the_nearest(run: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(run), "--metrics", "acuracy"])
    assert isinstance(done.exception, SightlineError)
    assert "'accuracy'" in str(done.exception)
