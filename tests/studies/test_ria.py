"""RIA's tables and figures: the recipes, and the curves under noise."""

import base64
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.datasets.benchmarks.rival10 import CLASSES
from sightline.experiments.outputs.noise_curves import REGIONS
from sightline.guides import RegionActivation
from sightline.runs import read_recipe
from sightline.studies import read_study, shipped_studies
from sightline.training.build import build

LEVELS = [30 / 255, 60 / 255]
COLUMNS = ["test/accuracy", *(f"test/{name}" for name in REGIONS)]


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


def test_every_item_can_be_read_and_its_variants_differ_in_the_guide_alone() -> None:
    items = [name.partition("/")[2] for name in shipped_studies() if name.startswith("ria/")]
    assert items == [*(f"figure-{n}" for n in (1, 3, 4, 5, 6, 7)), "table-1", "table-2"]
    for item in items:
        entry = read_study("ria", item)
        if entry.kind == "gallery":
            assert [set(choice.keys) for choice in entry.models] == [{"guide"}, {"guide"}]
        else:
            assert [(choice.keys, choice.uses) for choice in entry.variants] == [({"guide": None}, []), ({}, ["boxes"])]


@pytest.mark.parametrize("item", ["table-2", "figure-3"])
def test_pretrained_models_are_trained_as_moayeri_et_al_do_and_as_a_whole(item: str) -> None:
    entry = read_study("ria", item)
    assert [row.label.split(", ")[1] for row in entry.rows] == 2 * (2 * ["frozen features"] + 2 * ["all layers"])
    for row in entry.rows:
        recipe = entry.recipe_of(row)
        (stage,) = recipe.stages
        assert (recipe.optimizer.name, recipe.batch_size, recipe.model.weights) == ("adam", 32, "default")
        found = (stage.trainable, stage.epochs, stage.lr, recipe.optimizer.weight_decay)
        frozen = "frozen features" in row.label
        assert found == (("head", 10, 1e-5, 1e-4) if frozen else ("all", 50, 1e-4, 0.0))
        assert (recipe.guide_of(stage) is None) == row.label.endswith("baseline")


def test_vgg16_is_trained_by_sgd_without_momentum() -> None:
    for item in ("table-1", "figure-4"):
        entry = read_study("ria", item)
        optimizers = [entry.recipe_of(row).optimizer for row in entry.rows if row.label.startswith("VGG16")]
        assert [(each.name, each.momentum) for each in optimizers] == 2 * [("sgd", 0.0)]
    assert read_study("ria", "figure-5").keys["optimizer"] == {"name": "sgd", "momentum": 0.0}


@pytest.mark.parametrize("item", ["table-1", "figure-4"])
def test_models_from_scratch_begin_with_ten_epochs_of_cross_entropy(item: str) -> None:
    entry = read_study("ria", item)
    for row in entry.rows:
        recipe = entry.recipe_of(row)
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
