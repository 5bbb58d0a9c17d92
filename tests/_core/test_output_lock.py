import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from sightline._core.output_lock import holding_file, holding_folder
from sightline.errors import OutputInUseError, SightlineError, UnwritableError

HOLD = """
import sys, time
from pathlib import Path
from sightline._core.output_lock import holding_folder, holding_file
with (holding_folder if sys.argv[1] == "folder" else holding_file)(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_holder_is_named_and_a_dead_one_holds_nothing(tmp_path, kind):
    output, holding = tmp_path / "out" / "put", holding_folder if kind == "folder" else holding_file
    other = subprocess.Popen([sys.executable, "-c", HOLD, kind, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        words = f"{output} is in use by process {other.pid} on {socket.gethostname()} since 20"
        with pytest.raises(OutputInUseError, match=re.escape(words)), holding(output):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with holding(output):
        assert list((tmp_path / "out").rglob("*.lock"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with holding(tmp_path / "new" / "output"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()  # nobody wrote there


def test_a_second_holder_in_one_process_is_rejected(tmp_path):
    with (
        holding_folder(tmp_path),
        pytest.raises(OutputInUseError, match=f"in use by process {os.getpid()} "),
        holding_folder(tmp_path),
    ):
        pass
    with holding_folder(tmp_path), holding_folder(tmp_path / "inside"), holding_file(tmp_path / "other"):
        (tmp_path / "inside" / "file").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["inside", "file"]


def test_a_holder_that_waits_gets_its_turn(tmp_path):
    code = HOLD.replace("time.sleep(60)", "time.sleep(0.7)")
    other = subprocess.Popen([sys.executable, "-c", code, "folder", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with holding_folder(tmp_path, wait=30):
        pass
    assert other.wait(60) == 0


def test_files_of_killed_writers_of_an_output_are_removed(tmp_path):
    for name in (".boxes.0123456789ab.tmp.csv", ".other.0123456789ab.tmp.csv", "boxes.csv"):
        (tmp_path / name).touch()
    with holding_file(tmp_path / "boxes.csv"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.0123456789ab.tmp.csv", "boxes.csv"]


@pytest.mark.parametrize("holding", [holding_folder, holding_file])
def test_a_place_where_no_folder_can_be_is_bad_input(tmp_path, holding):
    (tmp_path / "file").touch()
    with (
        pytest.raises(SightlineError, match=r"cannot write .*Not a directory") as caught,
        holding(tmp_path / "file/a/b"),
    ):
        pass
    assert not isinstance(caught.value, UnwritableError)


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def unsupported(self, **_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    with pytest.warns(UserWarning, match="a file system without locks"), holding_folder(tmp_path):
        pass


def test_a_lock_costs_little(tmp_path):
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        with holding_folder(tmp_path):
            pass
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1  # what else the machine does prolongs some, not all
