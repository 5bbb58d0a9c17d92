"""The runs of a table, spread over several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sightline.errors import SightlineError
from sightline.runs import Run
from sightline.studies import load_study, read_study, run_study

PLAN = """
kind: training_runs
recipe: demo-cross-entropy
keys: {data.copies: 1, data.size: 32, image_size: 32, batch_size: 64, stages: [{epochs: 1, lr: 2.0e-3}]}
steps: [{name: train_first}]
variants:
  - {label: plain, keys: {guide: null}}
  - {label: continued, uses: [first], keys: {guide: null}, seeds: 1}
  - {label: without its file, keys: {guide: null, model.weights: missing.safetensors}, seeds: 1}
seeds: [3, 4]
columns: [test_shifted/accuracy]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_processes_make_the_table_of_one_also_after_a_kill(plan: Path, tmp_path: Path) -> None:
    alone = run_study(load_study(plan), tmp_path / "alone")

    folder = tmp_path / "spread"
    command = [str(Path(sys.executable).with_name("sightline")), "evaluate", str(plan), "--devices", "cpu,cpu"]
    process = subprocess.Popen([*command, "-o", str(folder)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not list(folder.glob("parts/*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [child for child in children(process.pid) if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any(map(is_alive, workers)):  # they end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("parts/*.json")}
    assert len(kept) < 4

    run_study(load_study(plan), folder, devices=["cpu", "cpu"])
    assert (folder / "table.csv").read_bytes() == (alone / "table.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # no part was done twice
    for run in ("plain-seed3", "plain-seed4", "continued-seed3"):
        one, other = (Run(place / "runs" / run).last.read_bytes() for place in (alone, folder))
        assert one == other, run
    report = (folder / "report.md").read_text()
    assert "Left out, 1 parts" in report
    assert "missing.safetensors" in report


def test_invalid_devices_and_studies_without_runs_raise(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="only the runs of a table"):
        run_study(read_study("lots", "table-5.3"), tmp_path / "out", devices=["cpu", "cpu"])
    with pytest.raises(SightlineError, match="device is 'gpu1'; expected 'cpu', or a GPU"):
        run_study(load_study(plan), tmp_path / "out", devices=["cpu", "gpu1"])
    with pytest.raises(SightlineError, match="give one device, or a list of them"):
        run_study(load_study(plan), tmp_path / "out", device="cpu", devices=["cpu", "cpu"])
    assert not (tmp_path / "out").exists()
