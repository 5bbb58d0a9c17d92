"""MoRF curves by the maps of two methods, on the digits."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sightline import explain
from sightline.errors import SightlineError
from sightline.metrics import square_curves
from sightline.studies import read_study, reproduce
from sightline.studies.image_selection import ImageSelection

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
    maps = explain(subject.model, images, "gradcam", targets, input_spec=subject.input_spec)
    expected = square_curves(
        subject.model,
        images,
        maps,
        targets,
        square=4,
        repeats=5,
        indices=torch.tensor(places),
        input_spec=subject.input_spec,
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


def test_curves_of_a_model_without_own_maps_are_reported(tmp_path: Path) -> None:
    wrong = ["models.0.method.name=impactx"]
    with pytest.raises(SightlineError, match="guide impactx"):
        reproduce("impactx", "figure-3", CURVES + wrong, output=tmp_path / "out")
