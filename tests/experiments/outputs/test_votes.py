"""Votes of people on the maps of trained models."""

from pathlib import Path

import pytest

from sightline.rating.batch import Contender
from sightline.rating.study import open_study
from sightline.studies import run_study
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
COMMON = {
    "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
    "columns": ["test_shifted/accuracy"], "keys": KEYS,
}  # fmt: skip


def rated(**changes):
    return make_study(
        COMMON
        | {
            "kind": "training_runs",
            "variants": [{"label": "base"}, {"label": "ours", "keys": {"guide": "focal"}}], "seeds": [0],
            "outputs": [{
                "name": "votes", "maps": {"Grad-CAM": "gradcam"}, "num_images": 2,
                "paper_votes": {"ours, Grad-CAM": {"pos": 0.59, "same": 0.3, "neg": 0.11}},
            }],
        }
        | changes
    )  # fmt: skip


def test_report_without_votes_lists_the_rating_commands(tmp_path: Path) -> None:
    figures = {"figures": {"test/accuracy": {"value": 0.5, "n": 9}}, "seconds": 1.0}
    done = {
        f"{name}/0": Part({**figures, "run": str(tmp_path / "out/runs" / f"{name}-seed0")}) for name in ("base", "ours")
    }
    assert "sightline rate" not in rated().summary({"base/0": done["base/0"]})
    text = rated().summary(done)
    assert f"sightline rate {tmp_path}/out/runs/ours-seed0 {tmp_path}/out/runs/base-seed0 --explainers gradcam" in text
    assert "| ours | Grad-CAM | … [59%] | … [30%] | … [11%] | not asked yet |" in text


@pytest.mark.slow
def test_votes_are_counted_when_the_study_is_given_again(tmp_path: Path) -> None:
    folder = run_study(rated(), tmp_path / "out")
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
    run_study(rated(), tmp_path / "out")
    report = (folder / "report.md").read_text()
    assert "| ours | Grad-CAM | 50% [59%] | 0% [30%] | 50% [11%] | 2 of 2 |" in report
    assert "sightline rate" not in report
