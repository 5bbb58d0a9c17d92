"""Relative accuracy under FGSM."""

import csv
from pathlib import Path

import pytest
import torch

from sightline.data import DATASETS
from sightline.data.loader import create_loader
from sightline.experiments.outputs.fgsm_accuracy import WRONG, relative_accuracy
from sightline.metrics import fgsm_hits
from sightline.models import load_model
from sightline.studies import read_study, run_study
from sightline.studies.run import StudyFolder
from sightline.studies.study import Part, make_study

DIGITS = {"name": "digits", "copies": 1, "size": 32}
KEYS = {"data": DIGITS, "image_size": 32, "batch_size": 64, "cache_images": True, "stages": [{"epochs": 1, "lr": 2e-3}]}


def study(**changes):
    keys = {
        "kind": "training_runs", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "columns": ["test_shifted/accuracy"],
        "keys": KEYS, "variants": [{"label": "baseline"}, {"label": "other", "keys": {"stages.0.lr": 1e-3}}],
        "seeds": [0], "outputs": [{"name": "fgsm_accuracy", "eps": [0.01, 0.2]}],
    }  # fmt: skip
    return make_study(keys | changes)


def test_models_are_compared_on_the_images_that_all_are_right_about() -> None:
    one = torch.tensor([[1, 1], [1, 0], [WRONG, WRONG], [1, 0]], dtype=torch.uint8)
    two = torch.tensor([[1, 0], [WRONG, WRONG], [1, 1], [0, 0]], dtype=torch.uint8)
    assert relative_accuracy([one, two]) == (2, [[1.0, 0.5], [0.5, 0.0]])  # images 0 and 3
    assert relative_accuracy([one]) == (3, [[1.0, pytest.approx(1 / 3)]])
    assert relative_accuracy([one[2:3], two[2:3]])[0] == 0


def part(hits: list[list[int]]) -> Part:
    tensors = {"stays_right": torch.tensor(hits, dtype=torch.uint8)}
    return Part({"figures": {"test_shifted/accuracy": {"value": 0.5, "n": 2}}, "seconds": 1.0}, tensors)


def test_a_variant_counts_when_all_variants_of_its_seed_and_panel_are_done() -> None:
    crossed = study(grid=[[{"label": "x"}, {"label": "y"}]], seeds=[0, 1])
    done = {
        "x, baseline/0": part([[1, 1], [1, 0]]),
        "x, other/0": part([[1, 1], [WRONG, WRONG]]),
        "y, baseline/0": part([[1, 1], [1, 1]]),
        "x, baseline/1": part([[1, 0], [1, 0]]),
        "x, other/1": part([[0, 0], [1, 0]]),
    }
    rows = [row for row in crossed.table(done) if row["column"] == "relative_accuracy"]
    assert {(row["variant"], row["seed"]) for row in rows} == {
        (f"x, {a}", s) for a in ("baseline", "other") for s in (0, 1)
    }
    assert [row["n"] for row in rows if row["seed"] == 0] == [1, 1, 1, 1]
    text = crossed.summary(done)
    assert "| x, baseline | 2 | 1.000 ± 0.000 | 0.500 ± 0.707 | 0.750 ± 0.354 |" in text
    assert "| y, baseline | 0 | … | … | … |" in text
    # mean over eps: 1 and 0.25 against 1 and 0.5; the difference 0 and -0.25, half of it 12.706 standard errors wide
    assert "x, other: -0.125 (-1.713 to +1.463), not significant" in text
    assert "robustness.png" not in text


@pytest.mark.slow
def test_a_study_attacks_what_it_trained(tmp_path: Path) -> None:
    folder = run_study(study(), tmp_path / "out")
    weights = folder / "runs" / "baseline-seed0" / "checkpoints" / "last.safetensors"
    model, spec = load_model("sightline/small_cnn", str(weights), 5, 32)
    batch = next(iter(create_loader(DATASETS.create(**DIGITS)["test_shifted"], size=32, batch_size=1000, train=False)))
    expected = fgsm_hits(model.eval(), batch.images, batch.labels, [0.01, 0.2], input_spec=spec)
    kept = StudyFolder(folder, study(), 1.0).finished()["baseline/0"].tensors["stays_right"].float()
    assert torch.equal(kept.where(kept != WRONG, torch.nan).nan_to_num(-1), expected.nan_to_num(-1))

    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    curve = [
        float(row["value"]) for row in table if row["variant"] == "baseline" and row["column"] == "relative_accuracy"
    ]
    assert curve[0] > curve[1]
    assert "robustness.png" in (folder / "report.md").read_text()
    assert (folder / "robustness.png").is_file()


def test_the_study_of_the_paper_is_there() -> None:
    paper = read_study("ec", "figure-9cd")
    assert list(paper.panels) == ["ResNet-50", "VGG-16"]
    assert [variant.label for variant in paper.variants] == ["Baseline", "Ours, FGSM", "Ours, zero", "Ours, mean"]
