"""Teaching studies and MoRF curves, on the digits."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sightline import explain
from sightline.data.map_store import MapStore
from sightline.errors import SightlineError
from sightline.metrics import square_curves
from sightline.studies import read_study, reproduce, run_study
from sightline.studies.image_selection import ImageSelection
from sightline.studies.study import Part, Study, make_study, shipped_studies
from sightline.training import Run, read_recipe

STAGE = {"stages": [{"epochs": 1, "lr": 0.01}]}
TEACHING = {
    "paper": "", "item": "digits", "kind": "teaching", "title": "Digits", "source": "",
    "data": {"name": "cifar10", "root": "nowhere", "val": 4},
    "recipe": {
        "image_size": 32, "model": "sightline/lenet5", "batch_size": 8, "augment": {"crop": 1.0, "flip": False},
        "stages": [{"epochs": 2, "lr": 0.01}], "save_best": {"metric": "val/accuracy"},
    },
    "first_recipe": STAGE,
    "teachers": {"cam": {"name": "gradcam"}},
    "seeds": 2,
    "rows": [
        {"label": "Plain", "paper_values": 67.96},
        {"label": "Taught", "first": True, "maps": "cam", "against": ["Plain", "Alone"],
         "recipe": {**STAGE, "guide": {"name": "impactx", "size": 32}}},
        {"label": "Alone", "first": True, "seeds": 1,
         "recipe": {**STAGE, "guide": {"name": "impactx", "size": 32, "weight": 0}}},
    ],
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
    return make_study({**TEACHING, **changes})


def test_the_parts_are_the_first_model_its_maps_and_then_the_seeds() -> None:
    assert study().parts() == ["first", "maps cam", "Plain/0", "Taught/0", "Alone/0", "Plain/1", "Taught/1"]
    assert study().scaled(0.5).parts()[-1] == "Alone/0"


def test_recipes_begin_where_the_rows_say(tmp_path: Path) -> None:
    teaching = study()
    plain, taught, _ = teaching.rows
    recipe = teaching.recipe_of(taught, 3, tmp_path)
    assert recipe.model.weights == str(tmp_path / "runs/first/checkpoints/best.safetensors")
    assert recipe.maps == str(tmp_path / "maps/cam")
    assert (recipe.seed, recipe.stages[0].epochs) == (3, 1)
    recipe = teaching.recipe_of(plain, 3, tmp_path)
    assert (recipe.model.weights, recipe.maps, recipe.stages[0].epochs) == (None, None, 2)


def test_differences_are_taken_seed_by_seed() -> None:
    facts = {"parameters": 10, "epochs": 2, "seconds": 3.0}
    accuracy = {"Plain/0": 0.50, "Plain/1": 0.60, "Taught/0": 0.53, "Taught/1": 0.61, "Alone/0": 0.55}
    text = study().summary({name: Part({"accuracy": value, **facts}) for name, value in accuracy.items()})
    assert "| Plain | 55.00 (7.07) | 67.96 | 2 | 10 | 2 | 3 |" in text
    assert "| Taught − Plain | +2.00 (1.41) | 2 of 2 |" in text
    assert "| Taught − Alone | -2.00 | 0 of 1 |" in text


def test_a_study_trains_explains_and_goes_on(tmp_path: Path, pictures: dict[str, object]) -> None:
    folder = run_study(study(data=pictures), tmp_path / "out")
    rows = {row["training"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert list(rows) == [part for part in study().parts() if not part.startswith("maps")]
    assert {row["n"] for row in rows.values()} == {"16"}
    assert (
        int(rows["Taught/0"]["parameters"]) == int(rows["Alone/0"]["parameters"]) > int(rows["Plain/0"]["parameters"])
    )
    MapStore(folder / "maps" / "cam").check_finished()
    first = load_file(folder / "runs/first/checkpoints/best.safetensors")
    taught = load_file(folder / "runs/taught-seed1/checkpoints/best.safetensors")
    assert all(torch.equal(taught[key], value) for key, value in first.items())  # frozen
    run = Run(folder / "runs" / "taught-seed1")
    assert float(run.rows[0]["n/impactx/unannotated"]) == 0
    assert read_recipe(run.path / "recipe.yaml").seed == 1

    # A part that is lost is made again from the run, which is not trained again.
    written = run.last.stat().st_mtime_ns
    (folder / "parts" / "Taught-1.json").unlink()
    run_study(study(data=pictures), folder)
    assert run.last.stat().st_mtime_ns == written
    after = {row["training"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert after["Taught/1"]["accuracy"] == rows["Taught/1"]["accuracy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"label": "A", "maps": "shap"}]}, "none of the teachers"),
        ({"rows": [{"label": "A", "against": ["B"]}]}, "none of the rows"),
        ({"first_recipe": None}, "need a first model"),
        ({"recipe": {**STAGE, "model": "sightline/lenet5"}}, "recipe.image_size is null"),
        ({"rows": [{"label": "A", "recipe": {"batchsize": 3}}]}, "did you mean 'batch_size'"),
        ({"teachers": {"cam": {"name": "gradcamm"}}}, "gradcam"),
    ],
)
def test_mistakes_are_met_before_any_work(changes: dict, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(**changes)


def test_the_shipped_studies_of_impactx_can_be_read() -> None:
    names = [name for name in shipped_studies() if name.startswith("impactx/")]
    assert names == ["impactx/figure-3", "impactx/figure-4", "impactx/figure-5", "impactx/table-2"]
    for name in names:
        assert read_study(*name.split("/")).parts()


CURVES = [
    "data={name: digits, size: 32}",
    "num_images=5",
    "shown=2",
    "method={label: SHAP, name: partition_shap, options: {evaluations: 20}}",
    "models=[{label: A net, name: sightline/lenet5, size: 32, method: {label: own, name: gradcam}}]",
]


def test_curves_are_those_of_the_metric(tmp_path: Path) -> None:
    folder = reproduce("impactx", "figure-3", CURVES, output=tmp_path / "out")
    read = read_study("impactx", "figure-3", CURVES)
    album = ImageSelection(read.data, "test")
    places = album.draw(5, read.seed)
    images = album.read(places, 32)
    torch.manual_seed(0)
    part = load_file(folder / "parts" / "A-net-own.safetensors")
    assert part["curves"].shape == (5, 65)
    assert torch.equal(part["images"], (images[:2] * 255).round().byte())

    from sightline.studies.subject import load_subject

    subject = load_subject(read.models[0], torch.device("cpu"), read.seed, "models.0")
    targets = subject.probabilities(images).argmax(1)
    maps = explain(subject.model, images, "gradcam", targets, input_spec=subject.spec)
    expected = square_curves(
        subject.model, images, maps, targets, square=4, repeats=5, indices=torch.tensor(places), input_spec=subject.spec
    )
    torch.testing.assert_close(part["curves"], expected)

    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["method"] for row in rows] == ["SHAP"] * 5 + ["own"] * 5
    area = torch.trapezoid(expected[0], dx=1 / 64)
    assert float(rows[5]["area"]) == pytest.approx(float(area), abs=1e-5)
    said = json.loads((folder / "parts" / "A-net-own.json").read_text())["values"]["said"]
    assert len(said) == 2
    for name in ("mean.png", "a-net.png"):
        assert Image.open(folder / name).size[0] > 200
    report = (folder / "report.md").read_text()
    assert "| A net |" in report
    assert "a-net.png" in report


def test_curves_of_a_model_without_own_maps_say_so(tmp_path: Path) -> None:
    wrong = ["models.0.method.name=impactx"]
    with pytest.raises(SightlineError, match="guide impactx"):
        reproduce("impactx", "figure-3", CURVES + wrong, output=tmp_path / "out")
