"""Runs in processes of their own: killed at any moment, or several at once."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sightline as sl
from sightline.runs import Run
from tiny import recipe

SCRIPT = Path(__file__).parents[1] / "tiny.py"


@pytest.fixture
def launch(tmp_path):
    def start(r, folder, *arguments):
        source = tmp_path / "recipe.yaml"
        source.write_text(r.to_yaml())
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(source), str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    return start


@pytest.mark.slow
def test_kill_at_random_moments_then_resume_gives_the_same_weights(tmp_path, launch):
    r = recipe(stages=[{"epochs": 4, "lr": 1e-3, "trainable": "head"}, {"epochs": 56, "lr": 1e-3}])
    whole = sl.train(r, output=tmp_path / "whole")
    run, epochs = Run(tmp_path / "killed"), []
    chance = random.Random(time.time_ns())
    while len(epochs) < 3:
        process = launch(r, run.path)
        until = len(run.rows) + chance.randint(1, 12)
        while len(run.rows) < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, whole.facts["seconds"] / 60))  # any moment of an epoch
        process.kill()
        output, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), output
        epochs.append(len(run.rows))
        if run.facts["status"] == "finished":  # sooner than it could be killed: begin again
            shutil.rmtree(run.path)
            epochs.clear()
    process = launch(r, run.path)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    first, second = load_file(whole.last), load_file(run.last)
    assert all(torch.equal(first[key], second[key]) for key in first), epochs
    assert [row["epoch"] for row in run.rows] == [str(epoch) for epoch in range(1, 61)]
    assert (
        f"epoch {epochs[-1] - 1}/" not in output
    )  # at most the epoch under way, and the one being written, is repeated


@pytest.mark.slow
def test_two_processes_train_as_one_and_write_once(tmp_path, launch):
    r = recipe(batch_size=10, stages=[{"epochs": 1, "lr": 1e-2, "trainable": "head"}, {"epochs": 2, "lr": 1e-2}])
    one = sl.train(r, output=tmp_path / "one")
    process = launch(r, tmp_path / "two", "2")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    two = Run(tmp_path / "two")
    assert two.facts["hardware"]["processes"] == 2
    assert two.facts["status"] == "finished"
    assert output.count("epoch 3/3") == 1
    first, second = load_file(one.last), load_file(two.last)
    for key in first:
        # Adam turns the rounding of a gradient near zero into a step, in a few weights.
        apart = ~torch.isclose(first[key], second[key], rtol=1e-3, atol=1e-4)
        assert apart.sum() <= 1e-4 * apart.numel()
        torch.testing.assert_close(first[key], second[key], rtol=1e-3, atol=2e-3)
    for a, b in zip(one.rows, two.rows, strict=True):
        for key in a.keys() - {"seconds"}:
            assert (a[key] == b[key] == "") or float(a[key]) == pytest.approx(float(b[key]), rel=1e-3, abs=1e-3), key


@pytest.mark.slow
@pytest.mark.parametrize(
    "last",
    [
        {"epochs": 2, "lr": 1e-2, "averaging": "ema", "layer_decay": 0.5},
        {"epochs": 2, "lr": 1e-2, "averaging": {"name": "wise_ft", "alpha": [0.2, 0.6]}},
        {"epochs": 2, "lr": 1e-3, "guide": {"name": "jtt", "upweight": 20.0}, "start": "initial"},
        {"epochs": 2, "lr": 1e-2, "guide": {"name": "afr", "regularization": 0.5}, "trainable": "head"},
    ],
    ids=["ema", "wise_ft", "jtt", "afr"],
)
def test_two_processes_average_and_weigh_as_one(tmp_path, launch, last):
    first = {"epochs": 1, "lr": 3e-3}
    r = recipe(batch_size=10, guide=None, stages=[first, last], save_best={"metric": "val/loss", "mode": "min"})
    one = sl.train(r, output=tmp_path / "one")
    process = launch(r, tmp_path / "two", "2")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    two = Run(tmp_path / "two")
    expected, found = load_file(one.last), load_file(two.last)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=2e-3, msg=key)
    assert [row.get("alpha") for row in one.rows] == [row.get("alpha") for row in two.rows]


@pytest.mark.slow
def test_a_full_disk_stops_every_process(tmp_path, launch):
    (tmp_path / "file").touch()
    process = launch(recipe(), tmp_path / "file" / "run", "2")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert "cannot write" in output
