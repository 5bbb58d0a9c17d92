"""Every command that writes goes on from the state before each of its file operations, to the result of one never killed.

A process that is killed before a file operation leaves what is on the disk at that moment. One run shows all of these states.
"""

import os
import shutil

import pytest
from children import Fault, run
from verbs import VERBS, left_over

POINTS = int(os.environ.get("SIGHTLINE_CRASH_POINTS", "4"))  # of each command, evenly spread; 0 = all
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", VERBS)
def test_command_resumes_from_before_each_file_operation(name, work, undisturbed, tmp_path):
    verb = VERBS[name]
    expected, *_ = undisturbed(name)
    folder = work()  # every state goes on here, since some files name their folder
    done = run(folder, *verb.arguments, fault=Fault(keep=tmp_path / "states"))
    assert done.code == 0, done.said
    states = sorted((tmp_path / "states").iterdir(), key=lambda state: int(state.name))
    print(f"{name}: {done.operations} file operations, {len(states)} states")
    for state in states[:: max(1, len(states) // POINTS)] if POINTS else states:
        shutil.rmtree(folder)
        shutil.copytree(state / "work", folder)
        done = run(folder, *verb.arguments)
        assert done.code == 0 or (verb.refused and verb.refused in done.said), f"before {state.name}: {done.said}"
        assert verb.result(folder) == expected, state.name
        assert done.code != 0 or not left_over(folder), state.name
