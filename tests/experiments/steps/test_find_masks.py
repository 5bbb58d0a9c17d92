"""Masks that are found once, for runs that learn from them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline import data
from sightline.errors import SightlineError
from sightline.runs import read_recipe
from sightline.studies import run_study, shipped_studies
from sightline.studies.study import make_study

PETS = [name.partition("/")[2] for name in shipped_studies() if name.startswith("pets/")]


STUDY = {
    "kind": "training_runs", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
    "keys": {
        "data.copies": 1, "data.size": 32, "image_size": 32, "batch_size": 64, "train_fraction": 0.2,
        "stages": [{"epochs": 1, "lr": 2.0e-3}],
    },
    "steps": [{"name": "find_masks", "model": "sightline/small_cnn", "segmenter": f"{__name__}:bright"}],
    "variants": [{"label": "random", "uses": ["masks"], "keys": {"guide": "random_background"}}],
    "seeds": [0], "columns": ["test_shifted/accuracy"],
}  # fmt: skip


def bright(image: np.ndarray, points: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    return image.mean(2) > 128


def test_variants_cannot_change_the_data_that_masks_are_found_for() -> None:
    with pytest.raises(SightlineError, match=r"data\.size"):
        make_study(STUDY | {"variants": [{"label": "a", "uses": ["masks"], "keys": {"data.size": 40}}]})


@pytest.mark.slow
def test_masks_are_made_once_and_every_run_learns_from_them(tmp_path: Path) -> None:
    study = make_study(STUDY)
    assert study.parts() == ["masks", "random/0"]
    folder = run_study(study, tmp_path / "out")
    recipe = read_recipe(folder / "runs" / "random-seed0" / "recipe.yaml")
    assert recipe.data.name == "found_masks"
    splits = data.create_dataset(recipe.data.name, **recipe.data.options)
    own = data.create_dataset("digits", copies=1, size=32)
    overlaps = []
    for index in range(len(own["train"])):
        sample, found = own["train"][index], splits["train"][index].mask
        if found is not None:
            expected = sample.image.float().mean(0) > 128
            assert torch.equal(found.as_subclass(torch.Tensor).bool(), expected.as_subclass(torch.Tensor))
            truth = sample.mask.as_subclass(torch.Tensor).bool()
            both = found.as_subclass(torch.Tensor).bool()
            overlaps.append(((both & truth).sum() / (both | truth).sum()).item())
    assert torch.equal(splits["test_shifted"][0].mask, own["test_shifted"][0].mask)  # the metrics have the truth
    report = (folder / "report.md").read_text()
    assert f"{len(overlaps)} for {len(own['train'])} training images, mean IoU {np.mean(overlaps):.3f}" in report
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    assert [(row["variant"], row["column"]) for row in table] == [("random", "test_shifted/accuracy")]
