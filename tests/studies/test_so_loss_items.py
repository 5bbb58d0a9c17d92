"""SO-Loss's table and figures: the views, layers, datasets and seeds of the paper."""

import pytest

from sightline.experiments.training_runs import TrainingRuns
from sightline.runs import Recipe
from sightline.studies import read_study

CURVES = ["figure-6", "figure-7", "figure-8"]
NETWORKS = {"ResNet-18": "penultimate", "ResNet-50": "penultimate", "ViT-B/16": "encoder.layers.encoder_layer_10"}


def recipes(item: str) -> dict[str, Recipe]:
    study = read_study("so-loss", item)
    assert isinstance(study, TrainingRuns)
    return {row.label: study.recipe_of(row) for row in study.rows}


@pytest.mark.parametrize("item", ["table-1", "figure-6", "figure-8"])
def test_maps_are_those_of_eight_views_one_at_a_time(item: str) -> None:
    for label, recipe in recipes(item).items():
        if recipe.guide is not None:
            assert recipe.guide["views"] == 8, label
            assert recipe.view_chunk == 1, label


def test_figure_7_compares_one_to_eight_views() -> None:
    views = {label.rpartition(", ")[2]: recipe.guide["views"] for label, recipe in recipes("figure-7").items()}
    assert views == {"1 view": 1, "2 views": 2, "4 views": 4, "8 views": 8}


def test_table_1_has_the_penultimate_layer_of_every_network() -> None:
    layers = {label.split(", ")[1]: recipe.model.layer for label, recipe in recipes("table-1").items()}
    assert layers == NETWORKS


@pytest.mark.parametrize("item", ["table-1", *CURVES])
def test_all_datasets_have_five_seeds_and_the_aerial_scenes_one(item: str) -> None:
    study = read_study("so-loss", item)
    runs = {row.label: [part for part in study.parts() if part.startswith(f"{row.label}/")] for row in study.rows}
    assert {label.split(", ")[0] for label in runs} == {"CUB", "Pet", "VOC", "aerial"}
    for label, parts in runs.items():
        assert len(parts) == (1 if label.startswith("aerial") else 5), label


def test_curves_are_of_the_shares_and_kernels_of_the_paper() -> None:
    shares = {recipe.guide["beta"] if recipe.guide else 1.0 for recipe in recipes("figure-6").values()}
    assert shares == {0.25, 0.5, 0.75, 1.0}
    assert {recipe.guide["blur"] for recipe in recipes("figure-8").values()} == {0, 1 / 20, 1 / 10, 1 / 5}
