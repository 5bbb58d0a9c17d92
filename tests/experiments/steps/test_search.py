"""Recipe keys that validation chooses before the runs of a table, for each combination of its grid."""

from pathlib import Path

import pytest
import torch
from test_store_maps import DISTILLATION, GUIDE, STAGE, pictures, study

from sightline.errors import NonFiniteLossError, SightlineError
from sightline.experiments.steps import StepContext
from sightline.runs import Run, read_recipe
from sightline.studies import read_study, reproduce, run_study
from sightline.studies.study import Part, make_study

__all__ = ["pictures"]  # a fixture

SEARCHED = {
    "steps": [
        {"name": "search", "label": "rate", "changes": STAGE, "space": {"batch_size": [4, 8], "stages.0.lr": [1.0e-9, 0.005]}},
        {"name": "train_first", "changes": STAGE, "uses": ["rate"]},
        {"name": "store_maps", "label": "cam", "explainer": "gradcam"},
        {"name": "search", "label": "lambda", "uses": ["rate", "first", "cam"], "changes": {**STAGE, "guide": "impactx"},
         "space": {"guide.weight": [0.2, 1.4]}},
    ],
    "variants": [
        {"label": "Plain", "uses": ["rate"]},
        {"label": "Taught", "uses": ["rate", "first", "cam", "lambda"], "keys": {**STAGE, "guide": GUIDE}},
    ],
    "outputs": [],
    "columns": ["test/accuracy"],
    "paper_values": {},
    "seeds": [0],
}  # fmt: skip


def test_a_search_is_done_only_when_asked_for() -> None:
    assert study(**SEARCHED).parts() == ["first", "cam", "Plain/0", "Taught/0"]
    searching = study(**SEARCHED, search=True)
    assert searching.parts() == ["rate", "first", "cam", "lambda", "Plain/0", "Taught/0"]
    assert searching.needs("Taught/0") == ["rate", "first", "cam", "lambda"]
    assert searching.needs("cam") == ["first"]
    assert study(**SEARCHED).needs("Taught/0") == ["first", "cam"]
    with pytest.raises(SightlineError, match="none of the steps is a search"):
        reproduce("ec", "table-1", search=True)


def test_runs_train_with_what_validation_chose(tmp_path: Path, pictures: dict[str, object]) -> None:
    searching = study(**SEARCHED, search=True, keys={**DISTILLATION["keys"], "data": pictures})
    folder = run_study(searching, tmp_path / "out")
    taught, plain = (Run(folder / "runs" / f"{name}-seed0").recipe for name in ("Taught", "Plain"))
    assert taught.stages[0].lr == plain.stages[0].lr == 0.005  # with a rate of 1e-9 nothing is learned
    assert Run(folder / "runs" / "first").recipe.stages[0].lr == 0.005
    assert taught.guide["weight"] in (0.2, 1.4)
    report = (folder / "report.md").read_text()
    assert "Search `rate`: 4 trials" in report
    assert f"guide.weight = {taught.guide['weight']}" in report


def test_every_combination_of_a_grid_has_steps_of_its_own(tmp_path: Path) -> None:
    grid = [
        [{"label": "A", "keys": {"model": {"name": "sightline/small_cnn"}}}, {"label": "B", "keys": {"image_size": 48}}]
    ]
    crossed = study(grid=grid, seeds=[0], outputs=["accuracy_and_costs"], paper_values={})
    assert crossed.parts()[:4] == ["A, first", "A, cam", "B, first", "B, cam"]
    assert crossed.needs("B, Taught/0") == ["B, first", "B, cam"]
    row = next(row for row in crossed.rows if row.label == "A, Taught")
    context = StepContext(
        read_recipe("impactx-lenet5"), tmp_path / "A", torch.device("cpu"), lambda name, keys: Part({})
    )
    recipe = crossed.recipe_of(row, context)
    assert recipe.model.name == "sightline/small_cnn"
    assert recipe.model.weights == str(
        tmp_path / "A/runs/first/checkpoints/best.safetensors"
    )  # the grid's model begins with it
    assert recipe.maps == str(tmp_path / "A/maps/cam")


def test_a_failed_row_does_not_stop_the_study(tmp_path: Path, pictures: dict[str, object]) -> None:
    grid = [
        [
            {
                "label": "No weights",
                "keys": {"model": {"name": "torchvision/resnet18", "weights": str(tmp_path / "none.pth")}},
            },
            {"label": "No data", "keys": {"data.root": str(tmp_path / "nowhere")}},
            {"label": "Whole", "keys": {}},
            {"label": "Diverging", "keys": {"stages.0.lr": 1e20}},
        ]
    ]
    crossed = study(
        grid=grid, seeds=[0], outputs=[], columns=["test/accuracy"], paper_values={}, steps=[{"name": "train_first"}],
        variants=[{"label": "Plain", "uses": ["first"]}],
        keys={**DISTILLATION["keys"], "data": pictures},
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError):
        run_study(crossed, tmp_path / "out")
    rows = (tmp_path / "out" / "table.csv").read_text()
    assert "Whole, Plain" in rows
    assert "No" not in rows
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Not finished: 2 of 8 parts are done." in report
    assert report.count("Left out, 2 parts:") == 3
    assert "none.pth" in report
    assert "nowhere" in report
    grid[0].pop()
    folder = run_study(
        make_study(crossed.model_dump() | {"grid": grid}), tmp_path / "again"
    )  # what is missing is no error
    assert "Not finished: 2 of 6 parts are done." in (folder / "report.md").read_text()


def test_table_2_has_the_values_of_each_dataset_and_equal_epochs() -> None:
    table = read_study("impactx", "table-2")
    assert len(table.rows) == len(table.paper_values) == 36
    assert table.paper_values["CIFAR-100, LeNet-5, Baseline"] == {"test/accuracy": 0.3623}
    assert table.paper_values["STL-10, EfficientNet-B2, WAE"] == {"test/accuracy": 0.9865}
    for row in table.rows:
        recipe = table.recipe_of(row)
        first = 20 if "first" in row.uses else 0
        assert first + sum(stage.epochs for stage in recipe.stages) == 40, row.label
        assert recipe.image_size == (224 if "LeNet" not in row.label else 96 if "STL" in row.label else 32)
