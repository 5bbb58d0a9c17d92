"""The images that a model explains most and least consistently."""

import csv
from pathlib import Path

import pytest
import torch

from sightline.data import DATASETS
from sightline.data.loader import create_loader
from sightline.explainers import create_explainer
from sightline.metrics import disturbed_images, explanation_consistency
from sightline.models import load_model
from sightline.studies import run_study
from sightline.studies.run import StudyFolder
from sightline.studies.study import make_study

DIGITS = {"name": "digits", "copies": 1, "size": 32}
KEYS = {
    "data": DIGITS,
    "image_size": 32,
    "batch_size": 64,
    "cache_images": True,
    "stages": [{"epochs": 2, "lr": 4e-3}],
    "guide": None,
}
COMMON = {"paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy", "keys": KEYS}


@pytest.mark.slow
def test_the_most_and_the_least_consistent_images_are_what_the_metric_says(tmp_path: Path) -> None:
    study = make_study(COMMON | {"kind": "consistency", "shown": 2, "eps": 0.05})
    folder = run_study(study, tmp_path / "out")
    weights = folder / "runs" / "demo-cross-entropy" / "checkpoints" / "last.safetensors"
    model, spec = load_model("sightline/small_cnn", str(weights), 5, 32)
    images = DATASETS.create(**DIGITS)["test_shifted"]
    batch = next(iter(create_loader(images, size=32, batch_size=1000, train=False)))
    model.eval()
    predicted = model(spec.normalize(batch.images)).argmax(1)
    explain = create_explainer("gradcam")
    maps = explain(model, batch.images, predicted, None, spec)
    attacked = disturbed_images(model, batch.images, maps, batch.labels, eps=0.05, input_spec=spec)
    again = explain(model, attacked, predicted, None, spec)
    unchanged = model(spec.normalize(attacked)).argmax(1) == predicted
    expected = explanation_consistency(maps, again, unchanged).where(predicted == batch.labels, torch.nan)

    part = StudyFolder(folder, study, 1.0).finished()["images"]
    torch.testing.assert_close(part.tensors["consistency"], expected.float(), equal_nan=True, atol=1e-4, rtol=0)
    right = expected[~expected.isnan()]
    paths = part.values["paths"]
    scores = {images.path(place): float(value) for place, value in enumerate(expected)}
    assert [scores[path] for path in paths[:2]] == pytest.approx(
        right.sort(descending=True).values[:2].tolist(), abs=1e-4
    )
    assert [scores[path] for path in paths[2:]] == pytest.approx(right.sort().values[:2].tolist(), abs=1e-4)
    assert part.tensors["attacked"].shape == (4, 3, 32, 32)
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    assert len(table) == len(right)
    assert f"right about {len(right)} of {len(expected)}" in (folder / "report.md").read_text()
    assert (folder / "figure.png").is_file()
