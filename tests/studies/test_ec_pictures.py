"""The pictures and the human evaluation of the paper on explanation consistency."""

import csv
from pathlib import Path

import pytest
import torch

from sightline.data import DATASETS
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.metrics import disturbed_images, explanation_consistency
from sightline.models import load_model
from sightline.rating.batch import Contender
from sightline.rating.study import open_study
from sightline.studies import read_study, run_study, shipped_studies
from sightline.studies.run import StudyFolder
from sightline.studies.study import Part, make_study

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
    images = DATASETS.create(**DIGITS)["test"]
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


def judged(**changes):
    return make_study(
        COMMON
        | {
            "kind": "judged", "variants": [{"label": "base"}, {"label": "ours", "keys": {"guide": "focal"}}], "seeds": [0],
            "maps": {"Grad-CAM": "gradcam"}, "images": 2,
            "votes": {"ours, Grad-CAM": {"pos": 0.59, "same": 0.3, "neg": 0.11}},
        }
        | changes
    )  # fmt: skip


def test_until_people_are_asked_the_report_says_how(tmp_path: Path) -> None:
    figures = {"figures": {"test/accuracy": {"value": 0.5, "n": 9}}, "seconds": 1.0}
    done = {
        f"{name}/0": Part({**figures, "run": str(tmp_path / "out/runs" / f"{name}-seed0")}) for name in ("base", "ours")
    }
    assert "sightline rate" not in judged().summary({"base/0": done["base/0"]})
    text = judged().summary(done)
    assert f"sightline rate {tmp_path}/out/runs/ours-seed0 {tmp_path}/out/runs/base-seed0 --explainers gradcam" in text
    assert "| ours | Grad-CAM | … [59%] | … [30%] | … [11%] | not asked yet |" in text


@pytest.mark.slow
def test_votes_are_counted_when_the_study_is_given_again(tmp_path: Path) -> None:
    folder = run_study(judged(), tmp_path / "out")
    runs = [folder / "runs" / f"{name}-seed0" for name in ("ours", "base")]
    place = folder / "rating" / "ours_Grad-CAM"
    assert f"--output {place}" in (folder / "report.md").read_text()
    store = open_study(place, [Contender(run, "gradcam") for run in runs], images=2)
    first, second = store.pairs
    for choice in ("b", "b", "b", "same", "a"):
        rater = store.join(None)
        store.vote(first, rater, "a", "a")
        store.vote(second, rater, choice, "b")
    store.close()
    run_study(judged(), tmp_path / "out")
    report = (folder / "report.md").read_text()
    assert "| ours | Grad-CAM | 50% [59%] | 0% [30%] | 50% [11%] | 2 of 2 |" in report
    assert "sightline rate" not in report


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name.startswith("ec/")])
def test_missing_data_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    study = read_study(*name.split("/"), ["seed=0"])
    with pytest.raises(SightlineError, match=r"VOC|stl10|CUB_200_2011|root|VOCdevkit"):
        study.prepare(torch.device("cpu"), tmp_path / "out")(study.parts()[0])
