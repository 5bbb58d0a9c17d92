"""The correlation of predicted maps with the teacher's."""

from pathlib import Path

import numpy as np
import pytest
import torch

import sightline as sl
from sightline._core.seeding import generator
from sightline.data.loader import create_loader
from sightline.experiments.outputs.map_correlation import MapCorrelation
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.network.input_spec import to_inputs
from sightline.runs import load_run
from sightline.training import train

KEYS = [
    "data.copies=1", "data.size=32", "image_size=32", "model.name=sightline/lenet5", "batch_size=64", "train_fraction=0.2",
    "stages=[{epochs: 1, lr: 5.0e-3}]",
]  # fmt: skip
TEACHER = {"evaluations": 20, "raw": True}


@pytest.mark.slow
def test_the_correlation_is_that_of_numpy_and_runs_without_a_branch_have_none(tmp_path: Path) -> None:
    first = train("demo-cross-entropy", [*KEYS, "guide=null"], output=tmp_path / "first", device="cpu")
    weights = f"model.weights={first.last}"
    guide = "guide={name: impactx, weight: 0}"
    run = train("demo-cross-entropy", [*KEYS, weights, guide], output=tmp_path / "second", device="cpu")
    output = MapCorrelation(name="map_correlation", options=TEACHER, num_images=7)
    part = output.measure(run, torch.device("cpu"))

    loaded, teacher = load_run(run, "cpu"), load_run(first, "cpu")
    test = loaded.splits[loaded.splits.main_test]
    drawn = torch.randperm(len(test), generator=generator(0, "map correlation"))[:7].sort().values.tolist()
    batch = next(iter(create_loader(test, size=32, batch_size=7, train=False, indices=drawn)))
    own = sl.create_explainer("impactx", raw=True)(loaded.model, batch.images, input_spec=loaded.input_spec)
    spec = loaded.input_spec
    predicted = loaded.model(to_inputs(batch.images, spec)).argmax(1)
    assert not predicted.equal(batch.labels)
    shap = sl.create_explainer("partition_shap", **TEACHER)

    def correlation(classes: torch.Tensor) -> float:
        maps = shap(teacher.model, batch.images, classes, input_spec=teacher.input_spec)
        return float(np.mean([np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(own.numpy(), maps.numpy())]))

    expected = {"map_correlation/predicted": correlation(predicted), "map_correlation/true": correlation(batch.labels)}
    assert part.values == pytest.approx(expected | {"explained": 7}, abs=1e-5)

    none = output.measure(first, torch.device("cpu"))
    assert none.values == dict.fromkeys(expected)
    runs = FinishedRuns({"": {"A": "A", "B": "B"}}, ["A/0", "B/0"], {"A/0": part, "B/0": none}, {}, {})
    assert [row["variant"] for row in output.table(runs)] == ["A", "A"]
    assert "mean over 7 images" in output.summary(runs)
    assert output.is_complete(none)
