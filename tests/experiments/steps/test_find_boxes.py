"""Boxes by LOST, found once before the runs, where weights of the transformer are given."""

import csv
from pathlib import Path

import pytest
import torch

from sightline import load_model
from sightline.data import DATASETS
from sightline.errors import SightlineError
from sightline.experiments.steps import StepContext
from sightline.localization.detectors import BOX_DETECTORS
from sightline.localization.writing import write_boxes
from sightline.runs import read_recipe
from sightline.studies import read_study

pytest.importorskip("timm")
VIT = "timm/test_vit"
DIGITS = {"name": "digits", "size": 32, "copies": 1}


def context(folder: Path) -> StepContext:
    recipe = read_recipe("demo-cross-entropy", {"data": DIGITS})
    return StepContext(recipe, folder, torch.device("cpu"), lambda name, keys: pytest.fail("nothing is trained"))


def step_of(**model: str):
    overrides = ["recipe=demo-cross-entropy", *(f"steps.0.model.{key}={value}" for key, value in model.items())]
    return read_study("ria", "table-1", [*overrides, "grid=[]", "paper_values={}"]).steps[0]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    torch.save(load_model(VIT)[0].state_dict(), tmp_path / "vit.pth")
    return str(tmp_path / "vit.pth")


def test_boxes_are_those_of_lost(weights: str, tmp_path: Path) -> None:
    where = context(tmp_path)
    step = step_of(name=VIT, weights=weights)
    part = step.prepare(where)()
    train = DATASETS.create(**DIGITS)["train"]
    model, spec = load_model(VIT, weights)
    done = write_boxes(train, tmp_path / "expected.csv", BOX_DETECTORS["lost"](model=model, input_spec=spec))
    found, expected = (
        [[row[edge] for edge in ("x1", "y1", "x2", "y2")] for row in csv.DictReader(file.open(newline=""))]
        for file in (tmp_path / "boxes" / "boxes.csv", tmp_path / "expected.csv")
    )
    assert found == expected
    assert (part.values["images"], part.values["boxes"]) == (done.images, done.boxes)
    assert step.keys(where) == {"data.boxes": str(tmp_path / "boxes" / "boxes.csv"), "guide.region": "boxes"}
    assert f"in {len(train)} training images, CorLoc" in step.summary(part)


def test_masks_count_without_weights(tmp_path: Path) -> None:
    step = step_of(name=VIT)
    assert step.keys(context(tmp_path)) == {}
    assert step.summary(step.prepare(context(tmp_path))()) == ""
    assert not (tmp_path / "boxes").exists()


def test_runs_that_use_boxes_train_with_them(tmp_path: Path) -> None:
    for change, region, boxes in ((["steps.0.model.weights=w.pth"], "boxes", True), ([], "masks", False)):
        entry = read_study("ria", "table-1", change)
        where = StepContext(
            read_recipe("ria"), tmp_path, torch.device("cpu"), lambda name, keys: pytest.fail("trained")
        )
        for row in entry.rows:
            recipe = entry.recipe_of(row, where)
            if row.label.endswith("RIA"):
                assert recipe.guide["region"] == region
                assert ("boxes" in recipe.data.options) == boxes
            else:
                assert "boxes" not in recipe.data.options


def test_missing_weights_are_named_before_anything_is_found(tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match=r"nowhere\.pth.*model\.weights of the step 'boxes'"):
        step_of(name=VIT, weights="nowhere.pth").prepare(context(tmp_path))
