import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sightline as sl
from sightline import SightlineError
from sightline.cli.app import app
from sightline.map_studies.grid_work import GridWorker
from sightline.studies.study import make_study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = sl.Recipe(
        name="digits", data={"name": "digits", "copies": 1, "size": 32}, image_size=32, model="sightline/lenet5",
        stages=[{"epochs": 1, "lr": 1e-3}],
    )  # fmt: skip
    return sl.train(recipe, output=tmp_path_factory.mktemp("runs") / "digits").path


def test_evaluate_writes_the_requested_measures(run: Path) -> None:
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


def test_bfloat16_writes_what_it_changed_next_to_the_values(run: Path) -> None:
    asked = ["--splits", "test_shifted", "--explainers", "gradcam", "--metrics", "accuracy,energy_in_mask,deletion"]
    few = ["--max-images-slow", "2", "--precision", "bf16"]
    done = CliRunner().invoke(app, ["evaluate", str(run), *asked, *few])
    assert done.exit_code == 0, done.output
    summary = json.loads((run / "evaluation" / "test_shifted" / "summary.json").read_text())
    assert summary["precision"] == "bf16"
    change = summary["precision_change"]
    assert change["n"] == 8
    assert {name: each["n"] for name, each in change["columns"].items()}["deletion@gradcam"] == 2
    assert "bfloat16 minus float32, mean (largest) over 8 images: accuracy" in done.output
    refused = CliRunner().invoke(app, ["evaluate", str(run), *asked, "--precision", "fp8"])
    assert "precision is 'fp8'; expected 'fp32' or 'bf16'" in str(refused.exception)


def test_an_unknown_metric_is_rejected_with_the_nearest(run: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(run), "--metrics", "acuracy"])
    assert isinstance(done.exception, SightlineError)
    assert "'accuracy'" in str(done.exception)


CODE = """
from torch import nn

class Colors(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, classes)

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))
"""


@pytest.fixture
def colors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Half of the red images are dark; a model of red (0) and blue (1) that knows them if it sees images as in training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_colors", raising=False)
    Path("their_colors.py").write_text(CODE)
    for place in range(4):
        for name, color in (("red", (200 if place < 2 else 140, 0, 0)), ("blue", (0, 0, 200))):
            Path("images", name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 10), color).save(Path("images", name, f"{place}.png"))
    weights = {
        "conv.weight": torch.eye(3)[..., None, None], "conv.bias": torch.zeros(3),
        "fc.weight": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), "fc.bias": torch.tensor([-0.4, 0.0]),
    }  # fmt: skip
    torch.save({"state_dict": weights}, "plain.pth")
    torch.save({"state_dict": weights, "classes": ["red", "blue"]}, "named.pth")
    Path("names.txt").write_text("red\nblue\n")
    return ["evaluate", "--model", "their_colors:Colors", "--size", "8", "--data", "folder", "root=images", "val=0", "test=0",
            "--splits", "train",
            "--explainers", "gradcam", "--metrics", "accuracy"]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "accuracy"),
    [
        # A red image is red if (r - mean) / std - 0.4 > -mean / std, that is r > 0.4 std.
        ("--weights named.pth --mean 0 --std 1", 1.0),
        ("--weights named.pth --mean 0 --std 1.6", 0.75),  # 140 / 255 < 0.64 < 200 / 255
        ("--weights named.pth --mean 0 --std 2", 0.5),
        ("--weights plain.pth --mean 0 --std 1 --classes names.txt", 1.0),
        ("--weights plain.pth --mean 0 --std 1", 0.0),  # without names the order is that of the folders: blue, red
    ],
)
def test_a_checkpoint_is_seen_and_named_as_the_options_say(colors: list[str], given: str, accuracy: float) -> None:
    done = CliRunner().invoke(app, [*colors, *given.split(), "-o", "table"])
    assert done.exit_code == 0, done.output
    (row,) = [
        row
        for row in csv.DictReader(Path("table", "table.csv").read_text().splitlines())
        if row["metric"] == "accuracy"
    ]
    assert float(row["value"]) == accuracy
    report = Path("table", "report.md").read_text()
    assert (
        f"- input: 8 x 8 px (the shorter side is resized, the center is kept), mean 0, 0, 0, std {given.split()[5]}"
        in report
    )
    assert "classes: 2" in report


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--weights plain.pth --classes images/none.txt", "there is no file 'images/none.txt'"),
        ("--weights plain.pth --mean 128", "divide them by 255"),
        ("--weights plain.pth --std a", "--std is 'a'; expected numbers joined by commas"),
    ],
)
def test_options_of_the_model_that_do_not_fit_are_rejected(colors: list[str], given: str, words: str) -> None:
    done = CliRunner().invoke(app, [*colors, *given.split(), "-o", "table"])
    assert isinstance(done.exception, SightlineError)
    assert words in str(done.exception)
    assert not Path("table").exists()


@pytest.mark.parametrize(
    "option", [("--size", "8"), ("--mean", "0"), ("--std", "1"), ("--classes", "c"), ("--weights", "w")]
)
@pytest.mark.parametrize("more", [[], ["-o", "table"]])
def test_options_of_a_model_are_rejected_with_a_run(run: Path, option: tuple[str, str], more: list[str]) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(run), *option, *more])
    assert isinstance(done.exception, SightlineError)
    assert f"{option[0].lstrip('-')} was given" in str(done.exception)


def test_labels_that_the_model_does_not_know_are_said(colors: list[str]) -> None:
    data = sl.data.create_dataset("folder", root="images", val=0, test=0)["train"]
    plan = {"paper": "", "item": "x", "kind": "grid", "title": "x", "source": "", "explainers": ["gradcam"],
            "data": {"name": "folder", "root": "images", "val": 0, "test": 0}, "split": "train",
            "metrics": {"average_drop": {}}}  # fmt: skip
    torch.save({**torch.load("named.pth"), "classes": ["cat", "dog"]}, "cats.pth")
    model = {"label": "m", "name": "their_colors:Colors", "weights": "cats.pth", "size": 8}
    with pytest.warns(UserWarning, match="blue', 'red'.*What uses the label means nothing here"):
        worker = GridWorker(make_study({**plan, "models": [model]}), torch.device("cpu"))
    assert worker.datasets["m"].labels.tolist() == data.labels.tolist()
    with pytest.raises(SightlineError, match="unknown to the model: 'blue', 'red'"):
        GridWorker(make_study({**plan, "models": [{**model, "classes": ["cat", "dog"]}]}), torch.device("cpu"))
