"""Walks: one image taken through a metric."""

import csv

import pytest
import torch

from sightline import data, load_model
from sightline._core.seeding import derive_seed
from sightline.data.transforms import eval_transform
from sightline.explainers import explain
from sightline.metrics import AverageDrop, Coherency, Deletion, Insertion
from sightline.studies import read_study, reproduce

SMALL = [
    "data={name: digits, size: 32}",
    "model={name: sightline/small_cnn, size: 32}",
    "image=3",
    "method={label: Grad-CAM, name: gradcam}",
]


@pytest.mark.parametrize(
    ("item", "column", "metric"),
    [
        ("figure-A.5", "coherency", lambda model, spec: Coherency(model, "gradcam", input_spec=spec)),
        ("figure-A.6", "area", lambda model, spec: Deletion(model, score="max", input_spec=spec)),
        ("figure-A.7", "area", lambda model, spec: Insertion(model, score="max", input_spec=spec)),
    ],
)
def test_the_value_is_the_metrics(item, column, metric, tmp_path):
    folder = reproduce("lots", item, SMALL, output=tmp_path / "out")
    (row,) = csv.DictReader((folder / "table.csv").open())
    assert (folder / "figure.png").stat().st_size > 10_000
    torch.default_generator.manual_seed(derive_seed(0, "sightline/small_cnn", "weights"))
    model, spec = load_model("sightline/small_cnn", size=32)
    test = data.DATASETS.create("digits", size=32)["test_shifted"]
    image = eval_transform(32)(test[3].image).as_subclass(torch.Tensor)[None]
    meter = metric(model, spec)
    meter.update(image, explain(model, image, input_spec=spec))
    assert float(row[column]) == pytest.approx(float(meter.compute()), abs=1e-5)


def test_confidence_is_that_of_the_predicted_class(tmp_path):
    folder = reproduce("lots", "figure-A.4", SMALL, output=tmp_path / "out")
    (row,) = csv.DictReader((folder / "table.csv").open())
    torch.default_generator.manual_seed(derive_seed(0, "sightline/small_cnn", "weights"))
    model, spec = load_model("sightline/small_cnn", size=32)
    test = data.DATASETS.create("digits", size=32)["test_shifted"]
    image = eval_transform(32)(test[3].image).as_subclass(torch.Tensor)[None]
    drop = AverageDrop(model, input_spec=spec)
    drop.update(image, explain(model, image, input_spec=spec))
    before, after = float(row["before"]), float(row["after"])
    assert max(0, before - after) / before == pytest.approx(float(drop.compute()), abs=1e-4)


def test_an_unknown_metric_is_rejected():
    with pytest.raises(Exception, match="metric"):
        read_study("lots", "figure-A.4", ["metric=adcc"])
