"""Trials that no other trial beats in two figures."""

import csv
import itertools
from pathlib import Path

import pytest
import torch
from swept import RECIPE
from torchvision import tv_tensors

from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import InMemory
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.runs.load_run import load_run
from sightline.sweeping import Sweep, sweep
from sightline.sweeping.front import pareto_front
from sightline.training.build import build


def masked_dots(images: int, seed: int) -> InMemory:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[8:20, 8:20] = 1
    samples = [
        Sample(
            tv_tensors.Image(torch.randint(0, 256, (3, 32, 32), generator=draw, dtype=torch.uint8)),
            i % 2, tv_tensors.Mask(mask), i, None, str(i),
        )
        for i in range(images)
    ]  # fmt: skip
    return InMemory(samples, ["zero", "one"], ("masked dots", seed))


@DATASETS.register("masked-dots")
def create() -> Splits:
    """Noise with a mask."""
    return Splits({"train": masked_dots(8, 0), "val": masked_dots(6, 1), "test": masked_dots(4, 2)})


@pytest.mark.parametrize("maximized", list(itertools.product([True, False], repeat=2)))
def test_pareto_front_is_what_no_other_point_beats(maximized: tuple[bool, bool]) -> None:
    points = torch.randint(0, 5, (30, 2), generator=torch.Generator().manual_seed(0)).tolist()
    signs = [1 if up else -1 for up in maximized]

    def beaten(point: list[int]) -> bool:
        for other in points:
            gains = [sign * (b - a) for sign, a, b in zip(signs, point, other)]
            if min(gains) >= 0 and max(gains) > 0:
                return True
        return False

    found = pareto_front(points, maximized)
    assert found == [i for i, point in enumerate(points) if not beaten(point)]
    assert 0 < len(found) < 30
    assert pareto_front([], maximized) == []
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)], maximized) == [0, 1]


def test_a_sweep_measures_the_second_metric_and_names_the_front(tmp_path: Path) -> None:
    recipe = RECIPE | {"data": "masked-dots", "stages": [{"epochs": 1, "lr": 1e-2}]}
    document = Sweep(name="front", recipe=recipe, space={"seed": [0, 1]}, pruning=None, front="energy_in_mask@gradcam")
    outcome = sweep(document, tmp_path / "sweep")
    rows = list(csv.DictReader((tmp_path / "sweep" / "results.csv").open(encoding="utf-8")))
    for row in rows:
        run = load_run(tmp_path / "sweep" / row["run"], device="cpu")
        loader = build(run.recipe).plain_loader("val", 0, 1)
        found = evaluate_model(run.model, loader, ["gradcam"], ["energy_in_mask"], input_spec=run.input_spec)
        assert float(row["energy_in_mask@gradcam"]) == pytest.approx(found.results[0].value, rel=1e-4)
    points = [(float(row["val/accuracy"]), float(row["energy_in_mask@gradcam"])) for row in rows]
    front = pareto_front(points, (True, True))
    assert [int(row["front"]) for row in rows] == [int(i in front) for i in range(2)]
    assert [trial.number for trial in outcome.front] == [int(rows[i]["trial"]) for i in front]
    assert "No trial beats these in both" in (tmp_path / "sweep" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("front", ["energy_in_mask", "energy_in_mask@gradcm", "accuracy@gradcam", "energy@gradcam"])
def test_a_front_of_no_maps_is_rejected(front: str) -> None:
    with pytest.raises(SightlineError, match="front"):
        Sweep(name="front", recipe=RECIPE, space={"seed": [0]}, front=front)


def test_a_figure_that_the_images_cannot_serve_is_rejected_before_a_folder_is_made(tmp_path: Path) -> None:
    document = Sweep(name="front", recipe=RECIPE, space={"seed": [0, 1]}, front="energy_in_mask@gradcam")
    with pytest.raises(SightlineError, match=r"front is 'energy_in_mask@gradcam'.* 'val' .*masks"):
        sweep(document, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
