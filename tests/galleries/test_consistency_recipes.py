"""The experiments of explanation consistency as the paper has them."""

import json
import re
from pathlib import Path

import pytest

from sightline.runs import read_recipe
from sightline.studies import read_study, shipped_studies


def test_table_1_has_the_measured_cost_next_to_the_papers_five_times() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "reweighting-cpu-resnet18.json"
    measured = json.loads(results.read_text())["pass, ratio to hard negative mining's"]
    (note,) = [note for note in read_study("ec", "table-1").notes if "five times" in note]
    for explainer, name in (("gradcam", "Grad-CAM"), ("xgradcam", "XGrad-CAM"), ("eigencam", "Eigen-CAM")):
        assert re.search(rf"{measured[explainer]:.1f} (times as long )?with {name}\b", note), name


@pytest.mark.parametrize("name", ["ec-voc", "ec-stl10", "ec-iccnn"])
def test_networks_start_from_scratch(name: str) -> None:
    assert read_recipe(name).model.weights is None


@pytest.mark.parametrize("item", [name.partition("/")[2] for name in shipped_studies() if name.startswith("ec/")])
def test_variants_with_imagenet_weights_are_labeled(item: str) -> None:
    study = read_study("ec", item)
    for row in getattr(study, "rows", []):
        assert (study.recipe_of(row).model.weights == "default") == ("pretrained" in row.label), row.label


@pytest.mark.parametrize("item", ["table-1", "table-2", "table-3", "figure-8"])
def test_voc_has_several_labels_of_which_the_top_one_is_explained(item: str) -> None:
    study = read_study("ec", item)
    for row in study.rows:
        recipe = study.recipe_of(row)
        data = recipe.data.model_dump()
        source = data.get("source", data)
        assert source["name"] != "voc" or source["labels"] == "multiple", row.label
        guide = recipe.guide
        if isinstance(guide, dict) and guide["name"] == "explanation_consistency":
            assert guide["labels"] == "top", row.label


def test_table_4_tests_imagenet_9_out_of_distribution() -> None:
    table = read_study("ec", "table-4")
    assert table.paper_values["IN-9, AL"] == {"mixed_rand/accuracy": 0.801}
    assert not any("AL" in part for part in table.parts())
    columns = {row.label: row.columns for row in table.rows}
    assert columns["IN-9, Ours"] == ["mixed_rand/accuracy"]
    assert columns["CUB, Ours"] == ["test/accuracy", "test/miou@eigencam"]


def test_only_ours_weighs_by_explanation_consistency_with_few_labels() -> None:
    study = read_study("ec", "figure-9ab")
    assert study.keys["data"]["name"] == "pascal_part"
    assert study.keys["guide"] == "iccnn"
    assert [variant.label for variant in study.variants if "guide" in variant.keys] == ["Ours"]


def test_iccnn_follows_its_own_schedule_and_the_intervals_of_the_paper() -> None:
    for item in ("table-4", "table-5", "figure-7", "figure-9ab"):
        study = read_study("ec", item)
        for row in getattr(study, "rows", []):
            recipe = study.recipe_of(row)
            schedule = recipe.schedule.model_dump() if hasattr(recipe.schedule, "model_dump") else recipe.schedule
            assert (schedule["every"], schedule["factor"]) == (125, 0.6), row.label
            assert [stage.lr for stage in recipe.stages] == [1e-5], row.label
    both, weights = read_recipe("ec-iccnn").guide
    assert both == "iccnn"
    assert weights["interval"] == 4


def test_table_1_shows_the_spread_of_the_weights_and_says_why() -> None:
    table = read_study("ec", "table-1")
    (logged,) = table.outputs
    assert set(logged.names) == {f"train/weights/{name}" for name in ("min", "median", "max", "at_min")}
    assert any("19 of 24" in note for note in table.notes)
