"""A run on several processes ends with 0, every time: what a group of processes leaves behind can abort Python at its exit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sightline as sl
from sightline.data.map_store import MapStore
from sightline.runs import Run
from tiny import recipe

RUNS = int(os.environ.get("SIGHTLINE_RUNS", "10"))  # of each command
SCRIPT = Path(__file__).parents[1] / "exits.py"
ARGUMENTS = {
    "train": ("train", "recipe.yaml", "--no-evaluate", "--output", "new-{}"),
    "explain": ("explain", "--run", "run", "--store", "new-{}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_both_processes_of_every_run_end_with_0(name, tmp_path):
    small = recipe(stages=[{"epochs": 1, "lr": 1e-3}])
    (tmp_path / "recipe.yaml").write_text(small.to_yaml())
    if name == "explain":
        sl.train(small, output=tmp_path / "run", device="cpu")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(RUNS), *ARGUMENTS[name]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 0]] * RUNS, done.stderr
    assert "terminate called" not in done.stderr
    for number in range(RUNS):
        new = tmp_path / f"new-{number}"
        if name == "train":
            assert Run(new).facts["status"] == "finished"
            assert Run(new).facts["hardware"]["processes"] == 2
        else:
            MapStore(new).check_finished()
    print(f"{name}: {RUNS} runs on two processes, all ended with 0")
