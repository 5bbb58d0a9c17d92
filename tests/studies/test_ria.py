"""RIA's tables and figures: the recipes, and the curves under noise."""

import base64
import csv
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.datasets.benchmarks.rival10 import CLASSES
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.guides import RegionActivation
from sightline.studies import read_study, run_study, shipped_studies
from sightline.studies.kinds.noise import REGIONS
from sightline.studies.study import Part, make_study
from sightline.training import Run, read_recipe
from sightline.training.build import build

LEVELS = [30 / 255, 60 / 255]


@pytest.fixture
def rival10(tmp_path: Path) -> Path:
    """RIVAL10's layout with a photograph of 32 x 24 a class and part; the object is its left half."""
    whole = np.zeros((24, 32, 3), np.uint8)
    whole[:, :16] = 255
    encoded = io.BytesIO()
    Image.fromarray(whole).save(encoded, "PNG")
    for part in ("train", "test"):
        folder = tmp_path / "RIVAL10" / part / "ordinary"
        folder.mkdir(parents=True)
        for number, (wnid, _) in enumerate(CLASSES.values()):
            Image.new("RGB", (32, 24), (20 * number, 90, 90)).save(folder / f"{wnid}_0.JPEG")
            known = {"entire-object": base64.b64encode(encoded.getvalue()).decode()}
            (folder / f"{wnid}_0_attr_dict.pkl").write_bytes(pickle.dumps(known))
    return tmp_path / "RIVAL10"


def study(**changes):
    keys = {
        "kind": "noise", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "variants": [{"label": "a"}, {"label": "b"}], "seeds": [0, 1],
    }  # fmt: skip
    return make_study(keys | changes)


def finished(foreground: list[float], background: list[float]) -> Part:
    curves = {name: {"at": LEVELS, "score": score} for name, score in zip(REGIONS, (foreground, background))}
    figures = {"test/accuracy": {"value": 0.5, "n": 4}}
    return Part({"figures": figures, "seconds": 1.0, "curves": curves})


def test_every_item_can_be_read_and_its_arms_differ_in_the_guide_alone() -> None:
    items = [name.partition("/")[2] for name in shipped_studies() if name.startswith("ria/")]
    assert items == [*(f"figure-{n}" for n in (1, 3, 4, 5, 6, 7)), "table-1", "table-2"]
    for item in items:
        entry = read_study("ria", item)
        choices = entry.models if entry.kind == "gallery" else entry.variants
        assert [set(choice.keys) for choice in choices] == [{"guide"}, {"guide"}]


def test_printed_figures_are_the_papers() -> None:
    table = read_study("ria", "table-1")
    printed = {row: 100 * figures["test/accuracy"] for row, figures in table.paper_values.items()}
    assert printed == pytest.approx({
        "VGG16, baseline": 86.6, "VGG16, RIA": 91.7, "ResNet50, baseline": 88.46, "ResNet50, RIA": 88.99,
        "ResNet18, baseline": 88.51, "ResNet18, RIA": 88.78,
    })  # fmt: skip
    # The row of ResNet-50 in Table 2 is that of Table 1, and is left out.
    assert set(read_study("ria", "table-2").paper_values) == {"ResNet18, baseline", "ResNet18, RIA"}


@pytest.mark.parametrize("item", ["table-1", "figure-4"])
def test_models_from_scratch_begin_with_ten_epochs_of_cross_entropy(item: str) -> None:
    entry = read_study("ria", item)
    for row in entry.rows:
        recipe = read_recipe(entry.recipe, entry._changes(row))
        assert [stage.epochs for stage in recipe.stages] == [10, 40]
        assert recipe.guide_of(recipe.stages[0]) is None
        assert (recipe.guide_of(recipe.stages[1]) is None) == row.label.endswith("baseline")
        sgd = row.label.startswith("VGG16")
        assert (recipe.optimizer.name, recipe.stages[1].lr) == (("sgd", 1e-2) if sgd else ("adam", 1e-3))
        assert recipe.model.weights is None


def test_the_recipe_trains_on_rival10_with_the_papers_hyperparameters(rival10: Path) -> None:
    small = ["image_size=32", "batch_size=4", "model=sightline/small_cnn", f"data.root={rival10}"]
    parts = build(read_recipe("ria", small))
    assert (len(parts.splits["train"]), len(parts.splits["test"])) == (10, 10)
    warm, guided = parts.objectives
    assert len(warm.guides) == 0
    (ria,) = guided.guides
    assert isinstance(ria, RegionActivation)
    assert (guided.task_weight, guided.weights, ria.penalty, ria.threshold) == (1.0, [0.5], 0.1, 0.5)
    assert ria.target == "predicted"
    batch = next(iter(parts.plain_loader("train", 0, 1)))
    assert ria.sample_mask(batch)["region_activation"].all()


def test_boxes_of_a_file_go_with_rival10(rival10: Path, tmp_path: Path) -> None:
    wnid = CLASSES["truck"][0]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(f"path,x1,y1,x2,y2\ntrain/ordinary/{wnid}_0.JPEG,2,4,10,20\n")
    small = [
        "image_size=32",
        "batch_size=4",
        "model=sightline/small_cnn",
        f"data.root={rival10}",
        f"data.boxes={boxes}",
    ]
    parts = build(read_recipe("ria", [*small, "guide.region=boxes"]))
    train = parts.splits["train"]
    (truck,) = train.has_boxes.nonzero().flatten().tolist()
    assert train.label(truck) == 0
    torch.testing.assert_close(train[truck].boxes.as_subclass(torch.Tensor), torch.tensor([[2.0, 4.0, 10.0, 20.0]]))


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
        (["test/accuracy", "test/rfs"], "background_noise_accuracy is not among them"),
        ([*(f"test/{name}" for name in REGIONS), "test_own/accuracy"], "several splits"),
    ],
)
def test_columns_without_curves_are_refused(columns: list[str], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(columns=columns)


@pytest.mark.slow
def test_curves_are_those_of_the_evaluation(tmp_path: Path) -> None:
    entry = read_study("ria", "figure-4", [
        "recipe=demo-cross-entropy", "grid=[]", "columns=[test/foreground_noise_accuracy,test/background_noise_accuracy]",
        "keys={data.copies: 1, data.size: 32, image_size: 32, batch_size: 64, stages: [{epochs: 1, lr: 2.0e-3}]}",
    ])  # fmt: skip
    folder = run_study(entry, tmp_path / "out")
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    found = evaluate(Run(folder / "runs" / "RIA-seed0"), ["test"], metrics=list(REGIONS))["test"]
    for metric in REGIONS:
        curve = [float(r["value"]) for r in table if (r["variant"], r["column"]) == ("RIA", metric) and r["level"]]
        assert curve == pytest.approx(found.curves[""][metric].score.tolist(), abs=1e-5)
        assert len(curve) == 7
    assert (folder / "noise.png").is_file()
    kept = json.loads((folder / "parts" / "baseline-0.json").read_text())
    assert set(kept["values"]["curves"]) == set(REGIONS)
