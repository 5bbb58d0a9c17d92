"""Accuracy by the level of noise on the object and around it."""

import csv
import json
from pathlib import Path

import pytest

from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.experiments.outputs.noise_curves import REGIONS
from sightline.runs import Run
from sightline.studies import read_study, run_study
from sightline.studies.study import Part, make_study

LEVELS = [30 / 255, 60 / 255]
COLUMNS = ["test/accuracy", *(f"test/{name}" for name in REGIONS)]


def study(**changes):
    keys = {
        "kind": "training_runs", "outputs": ["noise_curves"], "columns": COLUMNS,
        "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "variants": [{"label": "a"}, {"label": "b"}], "seeds": [0, 1],
    }  # fmt: skip
    return make_study(keys | changes)


def finished(foreground: list[float], background: list[float]) -> Part:
    curves = {name: {"at": LEVELS, "score": score} for name, score in zip(REGIONS, (foreground, background))}
    figures = {"test/accuracy": {"value": 0.5, "n": 4}}
    return Part({"figures": figures, "seconds": 1.0, "curves": curves})


def test_the_report_has_the_accuracy_at_each_level() -> None:
    done = {
        "a/0": finished([0.5, 0.25], [0.75, 0.5]), "a/1": finished([0.75, 0.25], [0.75, 0.5]),
        "b/0": finished([0.5, 0.5], [1.0, 1.0]), "b/1": finished([0.5, 0.5], [1.0, 1.0]),
    }  # fmt: skip
    entry = study()
    report = entry.summary(done)
    assert "| Variant | Seeds | 30/255 | 60/255 |" in report
    on, around = report.split("of the noise around it")
    assert "| a | 2 | 0.625 ± 0.177 | 0.250 ± 0.000 |" in on
    assert "| b | 2 | 1.000 ± 0.000 | 1.000 ± 0.000 |" in around
    rows = [row for row in entry.table(done) if row.get("level") == LEVELS[0] and row["variant"] == "a"]
    assert [(row["seed"], row["column"], row["value"]) for row in rows] == [
        (0, "foreground_noise_accuracy", 0.5), (0, "background_noise_accuracy", 0.75),
        (1, "foreground_noise_accuracy", 0.75), (1, "background_noise_accuracy", 0.75),
    ]  # fmt: skip

    left, middle, right = entry.figures(done)["noise.png"].axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[0.625, 0.25], [0.5, 0.5]]
    assert [line.get_ydata().tolist() for line in middle.lines] == [[0.75, 0.5], [1.0, 1.0]]
    assert [bar.get_height() for bar in right.patches] == [0.1875, 0.5]  # (0.25 + 0.125) / 2 over seeds


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["test/accuracy", "test/rfs"], "test/background_noise_accuracy is missing"),
        ([f"val/{name}" for name in REGIONS], "test/background_noise_accuracy is missing"),
    ],
)
def test_columns_without_curves_are_rejected(columns: list[str], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(columns=columns)


@pytest.mark.slow
def test_curves_are_those_of_the_evaluation(tmp_path: Path) -> None:
    entry = read_study("ria", "figure-4", [
        "recipe=demo-cross-entropy", "grid=[]", "outputs=[{name: noise_curves, split: test_shifted}]",
        "columns=[test_shifted/foreground_noise_accuracy,test_shifted/background_noise_accuracy]",
        "keys={data.copies: 1, data.size: 32, image_size: 32, batch_size: 64, stages: [{epochs: 1, lr: 2.0e-3}]}",
    ])  # fmt: skip
    folder = run_study(entry, tmp_path / "out")
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    found = evaluate(Run(folder / "runs" / "RIA-seed0"), ["test_shifted"], metrics=list(REGIONS))["test_shifted"]
    for metric in REGIONS:
        curve = [float(r["value"]) for r in table if (r["variant"], r["column"]) == ("RIA", metric) and r["level"]]
        assert curve == pytest.approx(found.curves[""][metric].score.tolist(), abs=1e-5)
        assert len(curve) == 7
    assert (folder / "noise.png").is_file()
    kept = json.loads((folder / "parts" / "baseline-0.json").read_text())
    assert set(kept["values"]["curves"]) == set(REGIONS)
