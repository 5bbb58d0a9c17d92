"""Coherence of groups of filters, before and after training."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data.batch import Batch
from sightline.experiments.outputs.filter_coherence import similarity
from sightline.network.input_spec import InputSpec
from sightline.studies import run_study
from sightline.studies.study import Part, make_study

DIGITS = {"name": "digits", "copies": 1, "size": 32}
KEYS = {"data": DIGITS, "image_size": 32, "batch_size": 64, "cache_images": True, "stages": [{"epochs": 1, "lr": 2e-3}]}


def study(**changes):
    keys = {
        "kind": "training_runs", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "columns": ["test_shifted/accuracy"],
        "keys": KEYS, "variants": [{"label": "plain"}, {"label": "icCNN", "keys": {"guide": {"name": "iccnn", "groups": 4}}}],
        "seeds": [0], "outputs": [{"name": "filter_coherence", "groups": 4}],
    }  # fmt: skip
    return make_study(keys | changes)


def test_similarity_is_that_of_all_images_at_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    images = torch.rand(7, 3, 6, 6)
    spec = InputSpec((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), (6, 6))
    batches = [Batch(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(3)]
    maps = model[0](spec.normalize(images)).detach().double()
    rows = (maps - maps.mean(0)).transpose(0, 1).flatten(1).numpy()
    lengths = np.sqrt((rows**2).sum(1))
    expected = rows @ rows.T / np.outer(lengths, lengths) + 1
    assert similarity(model, batches, "0", spec).numpy() == pytest.approx(expected, abs=1e-5)


def part(before: float, after: float) -> Part:
    figures = {"test_shifted/accuracy": {"value": 0.5, "n": 2}}
    return Part({"figures": figures, "seconds": 1.0, "coherence": {"before": before, "after": after}})


def test_variants_are_compared_after_training() -> None:
    done = {"plain/0": part(1.5, 1.0), "icCNN/0": part(1.5, 2.0), "plain/1": part(1.5, 2.0), "icCNN/1": part(1.5, 3.5)}
    both = study(seeds=[0, 1])
    text = both.summary(done)
    assert "| plain | 2 | 1.500 ± 0.000 | 1.500 ± 0.707 |" in text
    # differences 1 and 1.5: mean 1.25, and 12.706 standard errors of 0.25 each side
    assert "icCNN: +1.250 (-1.927 to +4.427), not significant" in text
    assert "| icCNN | 0 | … | … |" in both.summary({"plain/0": part(1.5, 1.0)})


@pytest.mark.slow
def test_iccnn_makes_groups_more_coherent(tmp_path: Path) -> None:
    # a weight large enough to show in a few steps
    variants = [
        {"label": "plain"},
        {"label": "icCNN", "keys": {"guide": {"name": "iccnn", "groups": 4, "weight": 5.0}}},
    ]
    folder = run_study(study(variants=variants), tmp_path / "out")
    found = {
        (row["variant"], row["column"]): float(row["value"]) for row in csv.DictReader((folder / "table.csv").open())
    }
    assert found["plain", "coherence_before"] == found["icCNN", "coherence_before"]  # the same network, by the seed
    assert found["icCNN", "coherence_after"] > max(
        found["icCNN", "coherence_before"], found["plain", "coherence_after"]
    )
    assert (folder / "coherence.png").is_file()
