"""Every command that writes meets a full disk: one line names the file, nothing is torn, and the command can go on."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import Fault, run
from verbs import VERBS, left_over

POINTS = 2  # file operations of each command from which on the disk is full

pytestmark = pytest.mark.slow


def one_line(said: str, folder: Path) -> bool:
    """Whether a command ends with one line that names a file, and shows no traceback."""
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    return (
        len(errors) == 1 and "Traceback" not in said and ("No space left" in errors[0] or "disk is full" in errors[0])
    )


@pytest.mark.parametrize("name", VERBS)
def test_a_disk_that_fills_up_at_any_operation_is_one_error_and_the_command_resumes(name, work, undisturbed):
    verb, draw = VERBS[name], random.Random(name)
    expected, operations, _ = undisturbed(name)
    for point in draw.sample(range(operations), min(POINTS, operations)):
        folder = work()
        done = run(folder, *verb.arguments, fault=Fault(full_at=point))
        if done.code == 0:  # what could not be written was of no consequence, such as the file of a lock
            assert verb.result(folder) == expected
            continue
        assert done.code == 1, f"full from operation {point} on: {done.said}"
        assert one_line(done.said, folder), f"full from operation {point} on: {done.said}"
        done = run(folder, *verb.arguments)
        assert done.code == 0 or (verb.refused and verb.refused in done.said), f"after {point}: {done.said}"
        assert verb.result(folder) == expected
        assert not left_over(folder)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 16 MB in memory, where the system lets one be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("name", VERBS)
def test_a_small_disk_that_is_full(name, work, undisturbed, small_disk):
    """All of a real file system is taken; then it is given back."""
    verb, folder = VERBS[name], work()
    expected, *_ = undisturbed(name)
    top = verb.outputs[0].split("/")[0]
    if (folder / top).exists():  # the output lies in a folder that is there already
        shutil.move(folder / top, small_disk / top)
    (folder / top).symlink_to(small_disk / top)
    if not (small_disk / top).exists():
        (small_disk / top).mkdir()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    done = run(folder, *verb.arguments)
    assert done.code == 1, done.said
    assert one_line(done.said, folder), done.said
    ballast.unlink()
    done = run(folder, *verb.arguments)
    assert done.code == 0, done.said
    assert verb.result(folder) == expected
    assert not left_over(small_disk)
