import re
import subprocess
import sys
from pathlib import Path

import pytest

from sightline._core.processes import check_processes, is_first_process
from sightline.errors import SightlineError

VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NODEID",
)  # fmt: skip


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def launch(monkeypatch: pytest.MonkeyPatch, variables: str) -> None:
    for each in variables.split():
        monkeypatch.setenv(*each.split("="))


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ("", True),
        ("RANK= SLURM_PROCID= LOCAL_RANK= WORLD_SIZE=", True),
        ("RANK=0 LOCAL_RANK=0", True),  # as some images of containers have it
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=1", True),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=2", True),  # torchrun
        ("RANK=1 LOCAL_RANK=1 WORLD_SIZE=2", False),
        ("RANK=2 LOCAL_RANK=0 WORLD_SIZE=4", False),  # the first one of the second machine
        ("LOCAL_RANK=1 WORLD_SIZE=2", False),  # Fabric
        ("SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=4", True),
        ("SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NTASKS=4", False),
        ("SLURM_PROCID=3", False),
        ("SLURM_PROCID=3 SLURM_LOCALID=1 RANK=3 LOCAL_RANK=1", False),  # copied by the script of a job
        ("SLURM_PROCID=2 SLURM_LOCALID=0 LOCAL_RANK=0", False),
    ],
)
def test_is_first_process_reads_the_variables_of_each_launcher(
    monkeypatch: pytest.MonkeyPatch, variables: str, first: bool
) -> None:
    launch(monkeypatch, variables)
    assert is_first_process() == first


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("RANK=1", "the variable RANK is 1, but WORLD_SIZE is not set.*unset RANK"),
        ("LOCAL_RANK=3", "the variable LOCAL_RANK is 3, but WORLD_SIZE is not set.*unset LOCAL_RANK"),
        ("RANK=0 LOCAL_RANK=1", "the variable LOCAL_RANK is 1, but WORLD_SIZE is not set"),
        ("RANK=1 WORLD_SIZE=", "the variable RANK is 1, but WORLD_SIZE is not set"),
        ("RANK=1 SLURM_PROCID=0 SLURM_NTASKS=1", "the variable RANK is 1, but WORLD_SIZE is not set"),
        ("RANK=1 WORLD_SIZE=1", "the variable RANK is 1, but WORLD_SIZE is 1; expected a number below it"),
        ("RANK=x", "the variable RANK is 'x'; expected a whole number, or no such variable"),
        ("LOCAL_RANK=-1", "the variable LOCAL_RANK is '-1'; expected a whole number"),
        ("RANK=0 WORLD_SIZE=two", "the variable WORLD_SIZE is 'two'; expected the number of processes"),
    ],
)
def test_a_variable_that_is_left_over_is_an_error(
    monkeypatch: pytest.MonkeyPatch, variables: str, message: str
) -> None:
    launch(monkeypatch, variables)
    with pytest.raises(SightlineError, match=message):
        is_first_process()
    with pytest.raises(SightlineError, match=message):
        check_processes(1, "devices=1 x nodes=1")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("RANK=1", "the variable RANK is 1, but WORLD_SIZE is not set"),
        ("LOCAL_RANK=1", "the variable LOCAL_RANK is 1, but WORLD_SIZE is not set"),
        ("RANK=y", "the variable RANK is 'y'; expected a whole number"),
        ("RANK=1 LOCAL_RANK=1 WORLD_SIZE=4", "4 processes were launched .WORLD_SIZE.; devices=1 x nodes=1 makes 1"),
    ],
)
def test_the_command_says_so_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: str, message: str
) -> None:
    launch(monkeypatch, variables)
    program = "from sightline.cli import main; main()"
    command = [sys.executable, "-c", program, "train", "demo-cross-entropy", "-o", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr)
    assert not (tmp_path / "run").exists()
