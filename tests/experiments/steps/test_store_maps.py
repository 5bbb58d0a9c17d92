"""Runs that begin with a first model and learn from its maps."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sightline.data.map_store import MapStore
from sightline.errors import SightlineError
from sightline.experiments.steps import StepContext
from sightline.runs import Run, read_recipe
from sightline.studies import read_study, run_study
from sightline.studies.study import Part, Study, make_study, shipped_studies

STAGE = {"stages": [{"epochs": 1, "lr": 0.01}]}
GUIDE = {"name": "impactx", "size": 32}
DISTILLATION = {
    "paper": "", "item": "digits", "kind": "training_runs", "title": "Digits", "source": "",
    "recipe": "impactx-lenet5",
    "keys": {"data": {"name": "cifar10", "root": "nowhere", "val": 4}, "batch_size": 8, "stages": [{"epochs": 2, "lr": 0.01}]},
    "steps": [
        {"name": "train_first", "changes": STAGE},
        {"name": "store_maps", "label": "cam", "explainer": "gradcam"},
    ],
    "seeds": [0, 1],
    "scaled_keys": ["seeds"],
    "variants": [
        {"label": "Plain"},
        {"label": "Taught", "uses": ["first", "cam"], "keys": {**STAGE, "guide": GUIDE}},
        {"label": "Alone", "uses": ["first"], "seeds": 1, "keys": {**STAGE, "guide": {**GUIDE, "weight": 0}}},
    ],
    "columns": [],
    "outputs": [{"name": "accuracy_and_costs", "differences": {"Taught": ["Plain", "Alone"]}}],
    "paper_values": {"Plain": {"test/accuracy": 0.6796}},
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, object]:
    """Dark and bright pictures, laid out as CIFAR-10."""
    draw = np.random.default_rng(0)
    for split, each in (("train", 12), ("test", 8)):
        with zipfile.ZipFile(tmp_path / f"cifar10-{split}.zip", "w") as archive:
            for number in range(2 * each):
                kind = number // each
                buffer = io.BytesIO()
                picture = draw.integers(90 * kind, 90 * kind + 160, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(picture).save(buffer, "png")
                archive.writestr(f"{split}/{('cat', 'dog')[kind]}/{number:04}.png", buffer.getvalue())
    return {"name": "cifar10", "root": str(tmp_path), "val": 4}


def study(**changes: object) -> Study:
    return make_study({**DISTILLATION, **changes})


def test_the_parts_are_the_first_model_its_maps_and_then_the_seeds() -> None:
    assert study().parts() == ["first", "cam", "Plain/0", "Taught/0", "Alone/0", "Plain/1", "Taught/1"]
    assert study().scaled(0.5).parts()[-1] == "Alone/0"


def test_recipes_begin_where_the_rows_say(tmp_path: Path) -> None:
    teaching = study()
    plain, taught, _ = teaching.rows
    context = StepContext(teaching.recipe_of(plain), tmp_path, torch.device("cpu"), lambda name, keys: Part({}))
    recipe = teaching.recipe_of(taught, context)
    assert recipe.model.weights == str(tmp_path / "runs/first/checkpoints/best.safetensors")
    assert recipe.maps == str(tmp_path / "maps/cam")
    assert recipe.stages[0].epochs == 1
    recipe = teaching.recipe_of(plain, context)
    assert (recipe.model.weights, recipe.maps, recipe.stages[0].epochs) == (None, None, 2)


def test_differences_are_taken_seed_by_seed() -> None:
    facts = {"parameters": 10, "epochs": 2, "seconds": 3.0}
    accuracy = {"Plain/0": 0.50, "Plain/1": 0.60, "Taught/0": 0.53, "Taught/1": 0.61, "Alone/0": 0.55}
    text = study().summary({name: Part({"accuracy": value, **facts}) for name, value in accuracy.items()})
    assert "| Plain | 55.00 ± 7.07 | 67.96 | 2 | 10 | 2 | 3 |" in text
    assert "| Taught − Plain | +2.00 ± 1.41 | 2 of 2 |" in text
    assert "| Taught − Alone | -2.00 | 0 of 1 |" in text


def test_a_study_trains_explains_and_resumes(tmp_path: Path, pictures: dict[str, object]) -> None:
    folder = run_study(study(keys={**DISTILLATION["keys"], "data": pictures}), tmp_path / "out")
    rows = {row["training"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert list(rows) == [part for part in study().parts() if part != "cam"]
    assert {row["n"] for row in rows.values()} == {"16"}
    assert (
        int(rows["Taught/0"]["parameters"]) == int(rows["Alone/0"]["parameters"]) > int(rows["Plain/0"]["parameters"])
    )
    MapStore(folder / "maps" / "cam").check_finished()
    first = load_file(folder / "runs/first/checkpoints/best.safetensors")
    taught = load_file(folder / "runs/Taught-seed1/checkpoints/best.safetensors")
    assert all(torch.equal(taught[key], value) for key, value in first.items())  # frozen
    run = Run(folder / "runs" / "Taught-seed1")
    assert float(run.rows[0]["n/impactx/unannotated"]) == 0
    assert read_recipe(run.path / "recipe.yaml").seed == 1

    # A part that is lost is made again from the run, which is not trained again.
    written = run.last.stat().st_mtime_ns
    (folder / "parts" / "Taught-1.json").unlink()
    run_study(study(keys={**DISTILLATION["keys"], "data": pictures}), folder)
    assert run.last.stat().st_mtime_ns == written
    after = {row["training"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert after["Taught/1"]["accuracy"] == rows["Taught/1"]["accuracy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": [{"label": "A", "uses": ["shap"]}], "outputs": ["accuracy_and_costs"]}, "none of the steps"),
        ({"steps": [{"name": "store_maps", "label": "cam", "explainer": "gradcam"}]}, "no earlier step trains"),
        ({"steps": ["train_first", {"name": "store_maps", "label": "cam", "explainer": "gradcamm"}]}, "gradcam"),
        ({"outputs": [{"name": "accuracy_and_costs", "differences": {"Plain": ["B"]}}]}, "there is no row 'B'"),
    ],
)
def test_store_maps_invalid_keys_raise_before_any_work(changes: dict, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(**changes)


def test_the_shipped_studies_of_impactx_can_be_read() -> None:
    names = [name for name in shipped_studies() if name.startswith("impactx/")]
    assert names == [
        f"impactx/{name}" for name in ("cifar10", "controls", "figure-3", "figure-4", "figure-5", "table-2")
    ]
    for name in names:
        assert read_study(*name.split("/")).parts()
